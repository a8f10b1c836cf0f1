"""Tracebacks of exception groups include their members. An exception that code shows itself is output of the code."""

import builtins
import contextlib
import functools
import itertools
import sys
import traceback

from effect_jupyter.kernel.interrupts import Interrupt
from effect_jupyter.kernel.output import output

GROUP = getattr(builtins, "BaseExceptionGroup", ())
# Maximum number of members of a group, of nested groups, and of lines in all.
WIDTH, DEPTH, LINES = 100, 20, 5000


def holds_others(error):
    """Tells whether an exception is a group, or has one among its causes and contexts."""
    seen = set()
    todo = [error]
    while todo:
        error = todo.pop()
        if error is not None and id(error) not in seen:
            if isinstance(error, GROUP):
                return True
            seen.add(id(error))
            todo += (error.__cause__, error.__context__)
    return False


def lines_of(kind, error, trace, offset):
    """Returns the traceback as Python formats it, with the members of groups and without the first frames."""
    for _ in range(offset):
        trace = trace and (trace.tb_next or trace)
    whole = traceback.TracebackException(kind, error, trace, max_group_width=WIDTH, max_group_depth=DEPTH)  # pyright: ignore[reportCallIssue]
    lines = (line for part in whole.format() for line in part.rstrip("\n").split("\n"))
    kept = list(itertools.islice(lines, LINES))
    return [*kept, "..."] if next(lines, None) is not None else kept


def is_amid(frame, names):
    """Tells whether code with these globals continues after the exception. Showing a value ends the code."""
    while frame is not None and frame.f_globals is not names:
        if str(frame.f_globals.get("__name__")).endswith(".displayhook"):
            return False
        frame = frame.f_back
    return frame is not None


@contextlib.contextmanager
def written_to_stderr(shell):
    """Writes a shown exception as output at its place, so that it is not taken for the one that ended the code."""

    def write(kind, error, lines):
        sys.stdout.flush()
        print(*lines, sep="\n", file=sys.stderr, flush=True)

    shell._showtraceback = write
    try:
        yield
    finally:
        del shell._showtraceback


def show_members(showtraceback):
    """Shows an exception as IPython does, except for groups and for those that the code shows itself."""

    @functools.wraps(showtraceback)
    def show(self, *args, **kwargs):
        if output.is_child and isinstance(sys.exc_info()[1], SystemExit):
            return  # a program does not show it
        # A forked process cannot report it otherwise.
        is_text = output.is_child or is_amid(sys._getframe(1), self.user_global_ns)
        with written_to_stderr(self) if is_text else contextlib.nullcontext():
            show_any(self, is_text, *args, **kwargs)

    def show_any(
        self,
        is_text,
        exc_tuple=None,
        filename=None,
        tb_offset=None,
        exception_only=False,
        running_compiled_code=False,
    ):
        stock = functools.partial(showtraceback, self, exc_tuple, filename, tb_offset, exception_only)
        try:
            kind, error, trace = self._get_exc_info(exc_tuple)
        except ValueError:
            return stock(running_compiled_code)  # there is none
        interrupt = None if is_text else Interrupt.of(error)
        if interrupt is not None:
            shown = (KeyboardInterrupt, interrupt, trace)
            return showtraceback(self, shown, filename, tb_offset, exception_only, running_compiled_code)
        if exception_only or isinstance(error, SyntaxError) or not holds_others(error):
            return stock(running_compiled_code)
        offset = self.InteractiveTB.tb_offset if tb_offset is None else tb_offset
        self._showtraceback(kind, error, lines_of(kind, error, trace, offset))
        if self.call_pdb:
            self.debugger(force=True)

    return show
