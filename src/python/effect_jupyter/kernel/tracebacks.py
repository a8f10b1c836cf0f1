"""Exceptions that hold others have them in their traceback; one that code shows itself is output of the code."""

import builtins
import contextlib
import functools
import itertools
import sys
import traceback

from effect_jupyter.kernel.interrupts import Interrupt
from effect_jupyter.kernel.streams import output

GROUP = getattr(builtins, "BaseExceptionGroup", ())
# Members of one group, groups within one another, and lines of all of it.
WIDTH, DEPTH, LINES = 100, 20, 5000


def holds_others(error):
    """Whether it is a group, or was raised from one or while one was handled."""
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
    """The traceback as Python shows it, the members and their members in it, without the first frames."""
    for _ in range(offset):
        trace = trace and (trace.tb_next or trace)
    whole = traceback.TracebackException(kind, error, trace, max_group_width=WIDTH, max_group_depth=DEPTH)  # pyright: ignore[reportCallIssue]
    lines = (line for part in whole.format() for line in part.rstrip("\n").split("\n"))
    kept = list(itertools.islice(lines, LINES))
    return [*kept, "..."] if next(lines, None) is not None else kept


def is_amid(frame, names):
    """Whether code with this global namespace goes on after it; to show the value of an expression ends it."""
    while frame is not None and frame.f_globals is not names:
        if str(frame.f_globals.get("__name__")).endswith(".displayhook"):
            return False
        frame = frame.f_back
    return frame is not None


@contextlib.contextmanager
def written_to_stderr(shell):
    """What is shown comes where it was shown among the rest, and is not taken for what ended the code."""

    def write(kind, error, lines):
        sys.stdout.flush()
        print(*lines, sep="\n", file=sys.stderr, flush=True)

    shell._showtraceback = write
    try:
        yield
    finally:
        del shell._showtraceback


def show_members(showtraceback):
    """IPython's own way to show an exception, but for those that hold others or that the code shows itself."""

    @functools.wraps(showtraceback)
    def show(self, *args, **kwargs):
        if output.is_child and isinstance(sys.exc_info()[1], SystemExit):
            return  # programs do not tell it
        # A forked process has no other way to tell it.
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
