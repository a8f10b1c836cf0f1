"""Tells whether private parts of Jupyter are what a patch expects; where they are not, Jupyter's own way will do."""

import inspect
import sys


def is_compatible(patch, check):
    """Whether the check holds; a line of the log says so if it does not."""
    try:
        reason = None if check() else "its private parts are others"
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
    if reason is not None:
        print(f"Left out: {patch} ({reason})", file=sys.stderr, flush=True)
    return reason is None


def has_parameters(function, *names):
    """Whether the function has these parameters and no others."""
    return list(inspect.signature(function).parameters) == list(names)


def references(function, *names):
    """Whether the code of the function, or of functions within it, mentions all of these names."""
    found, todo = set(), [inspect.unwrap(function).__code__]
    while todo:
        code = todo.pop()
        found.update(code.co_names)
        todo += [constant for constant in code.co_consts if inspect.iscode(constant)]
    return found.issuperset(names)
