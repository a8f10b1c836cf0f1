"""Tracebacks of exceptions that hold others, which IPython prints to standard error as if they were output."""

import builtins
import functools
import itertools
import traceback

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
    whole = traceback.TracebackException(kind, error, trace, max_group_width=WIDTH, max_group_depth=DEPTH)
    lines = (line for part in whole.format() for line in part.rstrip("\n").split("\n"))
    kept = list(itertools.islice(lines, LINES))
    return [*kept, "..."] if next(lines, None) is not None else kept


def show_members(showtraceback):
    """IPython's own way to show an exception, but for those that hold others."""

    @functools.wraps(showtraceback)
    def show(self, exc_tuple=None, filename=None, tb_offset=None, exception_only=False, running_compiled_code=False):
        stock = functools.partial(showtraceback, self, exc_tuple, filename, tb_offset, exception_only)
        try:
            kind, error, trace = self._get_exc_info(exc_tuple)
        except ValueError:
            return stock(running_compiled_code)  # there is none
        if exception_only or isinstance(error, SyntaxError) or not holds_others(error):
            return stock(running_compiled_code)
        offset = self.InteractiveTB.tb_offset if tb_offset is None else tb_offset
        self._showtraceback(kind, error, lines_of(kind, error, trace, offset))
        if self.call_pdb:
            self.debugger(force=True)

    return show
