"""Checks that private parts of Jupyter are as a patch expects. If they are not, Jupyter is not patched."""

import inspect
import sys
from collections.abc import Callable
from types import CodeType
from typing import Any


def is_compatible(patch: str, check: Callable[[], object]) -> bool:
    """Tells whether the check succeeds; logs a line if it does not."""
    try:
        reason = None if check() else "its private parts differ"
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
    if reason is not None:
        print(f"Left out: {patch} ({reason})", file=sys.stderr, flush=True)
    return reason is None


def has_parameters(function: Callable[..., Any], *names: str) -> bool:
    """Tells whether the function has exactly these parameters."""
    return list(inspect.signature(function).parameters) == list(names)


def references(function: Any, *names: str) -> bool:
    """Tells whether the code of the function, or of functions in it, uses all of these names."""
    found: set[str] = set()
    todo: list[CodeType] = [inspect.unwrap(function).__code__]
    while todo:
        code = todo.pop()
        found.update(code.co_names)
        todo += [constant for constant in code.co_consts if inspect.iscode(constant)]
    return found.issuperset(names)
