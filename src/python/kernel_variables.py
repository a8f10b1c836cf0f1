"""Tells of the variables of the user. Standard library only; runs in a namespace of its own, beside running code.

Defines `look`, which gives {"variables": [{"name", "type", "bytes", "shape", "repr"}, ...]} and survives values that
cannot be looked at.
"""

import reprlib
import sys

LENGTH = 200
BUILT_IN = (str, bytes, bytearray, list, tuple, set, frozenset, dict, range)

_short = reprlib.Repr()
_short.maxstring = _short.maxother = _short.maxlong = LENGTH
_short.maxlevel = 3


def _attempt(action, otherwise):
    try:
        return action()
    except BaseException:  # what the user's own methods raise is no concern of ours
        return otherwise


def _type_of(value):
    kind = type(value)
    module = kind.__module__
    return kind.__qualname__ if module in ("builtins", "__main__") else f"{module}.{kind.__qualname__}"


def _shape_of(value):
    if type(value) in BUILT_IN:
        return [len(value)]
    shape = getattr(value, "shape", ())
    return [int(length) for length in shape] if isinstance(shape, tuple) else []


def _bytes_of(value):
    size = getattr(value, "nbytes", None)
    return size if isinstance(size, int) and not isinstance(value, type) else sys.getsizeof(value)


def _repr_of(value):
    text = str(_short.repr(value)).encode("utf-8", "replace").decode()
    return text if len(text) <= LENGTH else text[: LENGTH - 1] + "…"


def look(namespace, hidden):
    variables = []
    for name, value in list(namespace.items()):
        if isinstance(name, str) and not name.startswith("_") and name not in hidden:
            variables.append(
                {
                    "name": name,
                    "type": _attempt(lambda: _type_of(value), "?"),
                    "bytes": _attempt(lambda: _bytes_of(value), 0),
                    "shape": _attempt(lambda: _shape_of(value), []),
                    "repr": _attempt(lambda: _repr_of(value), "?"),
                }
            )
    return {"variables": variables}
