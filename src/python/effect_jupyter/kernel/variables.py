"""Describes the variables of the user. Standard library only; runs in a separate namespace, also while code runs.

Defines `variables_of`, which returns {"variables": [{"name", "type", "bytes", "shape", "repr"}, ...]}. Methods of the
user's classes run in a thread that is abandoned if one of them takes long; their output is discarded.
"""

import array
import collections
import ctypes
import itertools
import operator
import sys
import threading
import time
import types
from typing import Any

MAX_VARIABLES = 10_000  # variables
MAX_LENGTH = 200  # characters of a text
MAX_ELEMENTS = 1_000  # elements of a value whose class formats it
VARIABLE_TIMEOUT = 0.3  # seconds for one variable
TOTAL_TIMEOUT = 3.0  # seconds for all variables
MAX_ABANDONED = 4  # abandoned threads that did not end

SHORT = (bool, int, float, complex, type(None), str, bytes, bytearray, array.array)
SIZED = (str, bytes, bytearray, list, tuple, set, frozenset, dict, range)
BRACKETS = {
    list: ("[", "]"),
    tuple: ("(", ")"),
    set: ("{", "}"),
    frozenset: ("frozenset({", "})"),
    dict: ("{", "}"),
    collections.deque: ("deque([", "])"),
}

_module_of = type.__dict__["__module__"].__get__
_name_of = type.__dict__["__qualname__"].__get__
_stuck = []


class GivenUp(BaseException):
    """Raised in a method of the user that takes too long."""


def _attempt(action, otherwise):
    try:
        return action()
    except BaseException:  # the user's methods may raise anything
        return otherwise


def _cut(text):
    text = str.__str__(text)
    short = text if len(text) <= MAX_LENGTH else text[: MAX_LENGTH - 1] + "…"
    return short.encode("utf-8", "replace").decode()


def _type_of(value):
    """Returns the name of a type without running code of the user, which attributes of a class may do."""
    kind = type(value)
    # It is missing if the code that created the class had no `__name__`.
    module, name = _attempt(lambda: _module_of(kind), None), _name_of(kind)
    is_plain = module in ("builtins", "__main__") or not isinstance(module, str)
    return _cut(name if is_plain else f"{module}.{name}")


def _number(value):
    number = int.__add__(operator.index(value), 0)
    if not 0 <= number < 1 << 63:
        raise ValueError(number)
    return number


class Look(threading.Thread):
    """Describes variables one after the other until it is abandoned."""

    def __init__(self, entries, shell):
        super().__init__(name="effect-jupyter-variables", daemon=True)
        self.entries, self.shell = entries, shell
        self.described = []
        # A class whose method did not return is not called again.
        self.avoided = {look.kind for look in _stuck}
        # The class whose methods run.
        self.kind = None
        self.is_given_up = False
        self.is_over = threading.Event()
        self.lock = threading.Lock()

    def run(self):
        try:
            try:
                self.describe_all()
            finally:
                with self.lock:
                    self.is_over.set()
        except BaseException:  # it may be raised at any line
            self.is_over.set()

    def describe_all(self):
        if hasattr(self.shell, "set_thread_parent"):
            self.shell.set_thread_parent({"header": {"msg_id": "effect_jupyter_variables"}})
        for name, value in self.entries:
            description = self.describe(name, value)
            if self.is_given_up:
                break
            self.described.append(description)

    def wait(self, deadline):
        """Returns the descriptions when all are done, or when one or all of them take too long."""
        count = 0
        while not self.is_over.wait(VARIABLE_TIMEOUT) and len(self.described) > count and time.monotonic() < deadline:
            count = len(self.described)
        self.is_given_up = True
        return list(self.described)

    def give_up(self):
        """Ends the thread. This works in Python code, but not in C code that it calls."""
        with self.lock:
            if not self.is_over.is_set():
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self.ident or 0), ctypes.py_object(GivenUp))
        if not self.is_over.wait(0.1):
            _stuck.append(self)

    def describe(self, name, value):
        self.kind = type(value)
        if self.kind in self.avoided:
            return _name(name, value)
        return {
            "name": name,
            "type": _type_of(value),
            "bytes": _attempt(lambda: self.bytes_of(value), 0),
            "shape": _attempt(lambda: self.shape_of(value), []),
            "repr": _attempt(lambda: _cut(self.repr_of(value)), "?"),
        }

    def shape_of(self, value):
        if type(value) in SIZED:
            return [_number(len(value))]
        shape = getattr(value, "shape", ())
        return [_number(length) for length in itertools.islice(shape, 64)] if isinstance(shape, tuple) else []

    def bytes_of(self, value):
        size = _attempt(lambda: _number(value.nbytes), None)
        return _number(sys.getsizeof(value)) if size is None else size

    def repr_of(self, value, depth=3):
        """Returns an abbreviated `repr`. For built-in types its time does not depend on the size of the value."""
        kind = type(value)
        if kind in SHORT:
            return _short(value)
        for base in BRACKETS:
            if issubclass(kind, base) and (kind is base or base.__len__(value) > MAX_ELEMENTS):
                text = self.elements_of(value, base, depth)
                return text if kind is base else f"{_type_of(value)}({text})"
        if kind in self.avoided:
            return "…"
        self.kind = kind
        numpy: Any = sys.modules.get("numpy")
        if kind is getattr(numpy, "ndarray", None):
            # The user may have configured libraries to show all elements.
            return f"array({numpy.array2string(value, threshold=100, edgeitems=3, separator=', ', prefix='array(')})"
        return repr(value)

    def elements_of(self, value, base, depth):
        start, end = BRACKETS[base]
        size = base.__len__(value)
        if size == 0:
            return {set: "set()", frozenset: "frozenset()"}.get(base, start + end)
        if depth == 0:
            return f"{start}…{end}"
        if base is dict:
            pairs = list(itertools.islice(dict.items(value), 4))
            pieces = [f"{self.repr_of(key, depth - 1)}: {self.repr_of(item, depth - 1)}" for key, item in pairs]
        else:
            pieces = [self.repr_of(item, depth - 1) for item in list(itertools.islice(base.__iter__(value), 6))]
        if len(pieces) < size:
            pieces.append("…")
        elif base is tuple and size == 1:
            end = ",)"
        return start + ", ".join(pieces) + end


def _short(value):
    kind = type(value)
    if kind in (str, bytes, bytearray):
        return repr(value[:MAX_LENGTH]) + ("…" if len(value) > MAX_LENGTH else "")
    if kind is array.array:
        return repr(value[:6]) + ("…" if len(value) > 6 else "")
    # Python may take minutes to convert the digits, and blocks all threads.
    return f"<int of {value.bit_length()} bits>" if kind is int and value.bit_length() > 1024 else repr(value)


def _name(name, value):
    """Returns the parts of a description that take constant time."""
    is_short = type(value) in SHORT
    return {
        "name": name,
        "type": _type_of(value),
        "bytes": sys.getsizeof(value) if is_short else 0,
        "shape": [len(value)] if is_short and type(value) in SIZED else [],
        "repr": _cut(_short(value)) if is_short else "…",
    }


def _entries_of(namespace, hidden):
    """Returns the latest variables, without modules and variables of IPython."""
    nothing = object()
    entries = []
    for name, value in list(namespace.items()):
        is_own = type(name) is str and not name.startswith("_") and hidden.get(name, nothing) is not value
        if is_own and not issubclass(type(value), types.ModuleType):
            entries.append((_cut(name), value))
    return entries[-MAX_VARIABLES:]


def variables_of(shell):
    entries = _entries_of(shell.user_ns, shell.user_ns_hidden)
    described = []
    deadline = time.monotonic() + TOTAL_TIMEOUT
    while len(described) < len(entries):
        rest = entries[len(described) :]
        _stuck[:] = [look for look in _stuck if not look.is_over.is_set()]
        if len(_stuck) >= MAX_ABANDONED or time.monotonic() >= deadline:
            described += [_name(name, value) for name, value in rest]
            break
        worker = Look(rest, shell)
        worker.start()
        described += worker.wait(deadline)
        if len(described) < len(entries):
            worker.give_up()
            described.append(_name(*entries[len(described)]))
    return {"variables": described}
