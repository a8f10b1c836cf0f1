"""Errors of values: those without an encoding, and exceptions of the user's code.

Runs in the kernel, as a module that no variable of the user refers to. Names, texts, attributes and representations of
the user's classes may raise, which is handled everywhere.
"""

import builtins
import json
import sys
import traceback
from typing import Any

# The prefix of the names of our modules in the kernel.
OURS = "effect_jupyter."
# Maximum characters of a key in a path.
STEP = 80

# Kernels of local gateways have it.
interrupts = sys.modules.get("effect_jupyter.kernel.interrupts")

group = getattr(builtins, "BaseExceptionGroup", ())
quote = json.encoder.encode_basestring_ascii
short_name = type.__dict__["__name__"].__get__
qualified_name = type.__dict__["__qualname__"].__get__
module_of = type.__dict__["__module__"].__get__
# Of `type` itself, because classes of the user may override the attributes.
raised: Any = BaseException
cause_of = raised.__cause__.__get__
context_of = raised.__context__.__get__
frames_of = raised.__traceback__.__get__
set_frames = raised.__traceback__.__set__


class Unsupported(TypeError):
    """A value has no encoding. `path` has the steps to it, the last one first."""

    def __init__(self, kind, detail):
        super().__init__(detail)
        self.kind = kind
        self.detail = detail
        self.path = []

    def describe(self):
        path = "$" + "".join(reversed(self.path))
        return {"valueType": sendable(self.kind), "path": sendable(path), "detail": sendable(self.detail)}


def name_of(kind):
    # It is missing if the code that created the class had no `__name__`.
    module, name = attempt(lambda: module_of(kind)), qualified_name(kind)
    return name if type(module) is not str or module in ("builtins", "__main__") else f"{module}.{name}"


def unsupported(value, detail="It has no encoding"):
    return Unsupported(name_of(type(value)), detail)


def step_to(key):
    if issubclass(type(key), str):
        text = shorten(str.__str__(key))
        return f".{text}" if text.isidentifier() else f"[{quote(text)}]"
    return f"[{shorten(attempt(lambda: repr(key)) or f'<{name_of(type(key))}>')}]"


def shorten(text):
    return text if len(text) <= STEP else text[: STEP - 1] + "…"


def attempt(action):
    try:
        return action()
    except BaseException:  # the user's methods may raise anything
        return None


def is_ours(frames):
    name = frames.tb_frame.f_globals.get("__name__")
    return type(name) is str and name.startswith(OURS)


class Shown(Exception):
    """Wraps an exception of the user, and is shown as that by IPython."""

    def __init__(self, text, lines, error=None):
        super().__init__(text)
        self.lines = lines
        self.error = error

    def _render_traceback_(self):
        return self.lines


def shown(error, shell):
    """Returns the exception to raise for one of the user, without frames of this package."""
    error = as_interrupt(raised_by_user(error))
    for one in chain_of(error):
        frames = frames_of(one)
        while frames is not None and is_ours(frames):
            frames = frames.tb_next
        set_frames(one, frames)
    name = short_name(type(error))
    said = attempt(lambda: sendable(str(error)))
    text = "<exception str() failed>" if said is None else said
    kind = type(name, (Shown,), {})
    lines = (
        attempt(lambda: by_itself(error))
        or (said is not None and attempt(lambda: lines_of(error, type(error), shell)))
        # Without its causes, and with the text determined here.
        or attempt(lambda: sent(shell.InteractiveTB.structured_traceback(kind, kind(text, []), frames_of(error), 0)))
        or [*traceback.format_tb(frames_of(error)), f"{name}: {text}"]
    )
    return kind(text, lines, error).with_traceback(frames_of(error))


def as_interrupt(error):
    """Returns the interrupt for a cancellation that it caused, in kernels that record it."""
    return (interrupts and interrupts.Interrupt.of(error)) or error


def raised_by_user(error):
    """Replaces a StopIteration, which a coroutine cannot raise."""
    cause = cause_of(error)
    if type(error) is not RuntimeError or not issubclass(type(cause), StopIteration):
        return error
    frames = frames_of(cause)
    return cause if frames is not None and is_ours(frames) else error


def chain_of(error):
    """Returns the exception and its causes."""
    chain, rest = {}, [error]
    while rest:
        one = rest.pop()
        if one is not None and id(one) not in chain:
            chain[id(one)] = one
            rest += [cause_of(one), context_of(one)]
    return list(chain.values())


def by_itself(error):
    """Returns the lines of an exception with `_render_traceback_`, which IPython supports."""
    if not hasattr(type(error), "_render_traceback_"):
        return None
    lines = error._render_traceback_()
    return sent(lines) if type(lines) is list else None


def lines_of(error, kind, shell):
    frames = frames_of(error)
    if issubclass(kind, SyntaxError):
        return sent(shell.SyntaxTB.structured_traceback(kind, error, traceback.extract_tb(frames)))
    if any(issubclass(type(one), group) for one in chain_of(error)):
        # IPython cannot format it.
        return sent("".join(traceback.format_exception(kind, error, frames)).splitlines())
    return sent(shell.InteractiveTB.structured_traceback(kind, error, frames, tb_offset=0))


def sent(lines):
    return [sendable(line) for line in lines]


def sendable(text):
    """Returns text as it can be sent, with lone surrogates as escapes."""
    return text.encode("utf-8", "backslashreplace").decode()
