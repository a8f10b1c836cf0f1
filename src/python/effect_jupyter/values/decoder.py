"""Decodes values of Python from JSON with tags and buffers, as the client sends them.

Runs in the kernel, as a module that no variable of the user refers to; the counterpart of the codec's Encoder.
"""

import array
import datetime
import decimal
import json
import sys

from effect_jupyter.values.codec import with_stack
from effect_jupyter.values.errors import Unsupported
from effect_jupyter.values.libraries import class_of


def decode(text, buffers):
    """Returns the value of a JSON text; buffers are counted from 1."""

    def revive(value):
        tag = value.get("$")
        return value if tag is None else decoder_of(tag)(value, buffers)

    return with_stack(lambda: json.JSONDecoder(object_hook=revive).decode(str(text, "utf-8")))


def decoder_of(tag):
    if tag not in DECODERS:
        raise ValueError(f"Its tag {tag!r} is unknown")
    return DECODERS[tag]


def bytes_of(value, buffers):
    """Returns a buffer that the JSON refers to."""
    index = value["v"]
    if not 0 < index <= len(buffers):
        raise ValueError(f"It lacks the buffer {index}")
    return buffers[index - 1]


def moment_from(value, buffers):
    moment = datetime.datetime.fromisoformat(value["v"])
    if "zone" not in value:
        return moment
    import zoneinfo

    try:
        return moment.astimezone(zoneinfo.ZoneInfo(value["zone"]))
    except zoneinfo.ZoneInfoNotFoundError:
        return moment


def array_from(value, buffers):
    kind, size = value["dtype"][0], int(value["dtype"][1:])
    data = bytes_of(value, buffers)
    if class_of("numpy", "ndarray"):
        numpy = sys.modules["numpy"]
        # A copy, because the message is read-only.
        return numpy.frombuffer(data, f"<{kind}{size}").reshape(value["shape"]).copy()
    if len(value["shape"]) != 1:
        raise Unsupported("NdArray", "It has several dimensions, for which NumPy has to be imported in the kernel")
    codes = {
        "f4": "f",
        "f8": "d",
        "i1": "b",
        "i2": "h",
        "i4": "i",
        "i8": "q",
        "u1": "B",
        "u2": "H",
        "u4": "I",
        "u8": "Q",
    }
    return array.array(codes[value["dtype"]], bytes(data))


def hashable(value):
    """Returns a value that can be in a set or the key of a dict."""
    if isinstance(value, list):
        return tuple(map(hashable, value))
    return frozenset(value) if isinstance(value, set) else value


def distinct(value, kind, what):
    """Refuses values that are equal in Python, such as 1 and True."""
    made = kind(value["v"])
    if len(made) < len(value["v"]):
        raise Unsupported(value["$"].capitalize(), f"Two of its {what} are the same in Python")
    return made


DECODERS = {
    "int": lambda value, buffers: int(value["v"], 16),
    "float": lambda value, buffers: float(value["v"]),
    "bytes": lambda value, buffers: bytes(bytes_of(value, buffers)),
    "array": array_from,
    "datetime": moment_from,
    "timedelta": lambda value, buffers: datetime.timedelta(microseconds=int(value["v"])),
    "decimal": lambda value, buffers: decimal.Decimal(value["v"]),
    "record": lambda value, buffers: dict(value["v"]),
    "map": lambda value, buffers: distinct(value, lambda pairs: {hashable(key): item for key, item in pairs}, "keys"),
    "set": lambda value, buffers: distinct(value, lambda items: set(map(hashable, items)), "elements"),
}
