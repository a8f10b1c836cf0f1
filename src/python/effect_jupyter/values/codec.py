"""Values of Python as JSON with tags and buffers.

Runs in the kernel, as a module that no variable of the user refers to. Standard library only.

A JSON object with the key "$" is a value of a type that JSON does not have; "v" is its content, or the index of a
buffer.
"""

import array
import collections.abc
import dataclasses
import datetime
import decimal
import enum
import json
import pathlib
import re
import sys
import uuid

from effect_jupyter.values.errors import Unsupported, step_to, unsupported
from effect_jupyter.values.libraries import INEXACT, arrow, of_library

# The largest integer up to which JavaScript represents all integers.
SAFE = 2**53 - 1
# Maximum depth of values, well below the limits of the parsers on both sides.
MAX_DEPTH = 200
# Maximum frames of Python's stack for that, and as many below it; the user may have set a lower limit.
STACK = 3000

# The key of a tag, and keys that JSON escapes: V8 can confuse a later key with one that has a backslash.
UNSAFE_KEY = re.compile(r'^\$\Z|[\x00-\x1f"\\]').search

dumps = json.JSONEncoder(ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":")).encode
surrogates = re.compile("[\ud800-\udfff]")


def to_bytes(text):
    """Encodes JSON text as UTF-8, with lone surrogates as escapes."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        return surrogates.sub(lambda match: f"\\u{ord(match[0]):04x}", text).encode()


def with_stack(action):
    """Calls a function whose recursion is as deep as MAX_DEPTH."""
    limit = sys.getrecursionlimit()
    if limit >= STACK:
        return action()
    sys.setrecursionlimit(STACK)
    try:
        return action()
    finally:
        sys.setrecursionlimit(limit)


class Encoder:
    """Encodes the values of one message."""

    def __init__(self, arrow=False):
        self.buffers = []
        self.bytes = 0
        self.within = set()
        self.arrow = arrow
        self.known = {}

    def text(self, value):
        """Returns the JSON text of a value as bytes; its binary parts are added to the buffers."""
        text = to_bytes(with_stack(lambda: dumps(self.encode(value))))
        self.bytes += len(text)
        return text

    def encode(self, value):
        kind = type(value)
        if kind is str or value is None or kind is bool:
            return value
        if kind is int:
            return value if -SAFE <= value <= SAFE else {"$": "int", "v": f"{value:x}"}
        if kind is float:
            # False for infinities and NaN.
            return value if value - value == 0 else {"$": "float", "v": repr(value)}
        encode = self.known.get(kind)
        if encode is None:
            encode = self.known[kind] = find(value, kind)
        return encode(self, value)

    def binary(self, data):
        """Adds bytes that do not change any more: they may be sent after this request."""
        self.bytes += len(data)
        self.buffers.append(data)
        return len(self.buffers)

    def array(self, dtype, shape, data):
        return {"$": "array", "dtype": dtype, "shape": shape, "v": self.binary(data)}

    def enter(self, value):
        """Begins a level. The caller encodes the parts itself, as each frame counts MAX_DEPTH times."""
        if id(value) in self.within:
            raise unsupported(value, "It contains itself")
        if len(self.within) >= MAX_DEPTH:
            raise unsupported(value, f"It is nested deeper than {MAX_DEPTH} levels")
        self.within.add(id(value))

    def leave(self, value):
        self.within.discard(id(value))

    def items(self, values):
        done = []
        encode = self.encode
        try:
            for value in values:
                done.append(encode(value))
        except Unsupported as error:
            error.path.append(f"[{len(done)}]")
            raise
        return done

    def pairs(self, pairs):
        done = []
        for key, value in pairs:
            try:
                done.append([self.encode(key), self.encode(value)])
            except Unsupported as error:
                error.path.append(step_to(key))
                raise
        return done

    def record(self, pairs):
        done, is_plain = {}, True
        for key, value in pairs:
            if UNSAFE_KEY(key):
                is_plain = False
            try:
                done[key] = self.encode(value)
            except Unsupported as error:
                error.path.append(step_to(key))
                raise
        return done if is_plain else {"$": "record", "v": list(done.items())}


def sequence(encoder, value):
    encoder.enter(value)
    try:
        return encoder.items(value)
    finally:
        encoder.leave(value)


def enumerated(encoder, value):
    encoder.enter(value)
    try:
        return encoder.encode(value.value)
    finally:
        encoder.leave(value)


def mapping(encoder, value):
    encoder.enter(value)
    try:
        if all(type(key) is str for key in value):
            return encoder.record(value.items())
        if all(issubclass(type(key), str) and not issubclass(type(key), enum.Enum) for key in value):
            return encoder.record((str.__str__(key), item) for key, item in value.items())
        pairs = encoder.pairs(value.items())
    finally:
        encoder.leave(value)
    check_distinct(value, [key for key, _ in pairs], "keys")
    return {"$": "map", "v": pairs}


def collection(encoder, value):
    items = sequence(encoder, value)
    check_distinct(value, items, "elements")
    return {"$": "set", "v": items}


def check_distinct(value, encoded, what):
    """Refuses values that would be equal in JavaScript, such as a path and its text."""
    # In JavaScript only primitive values can be equal, two NaN among them.
    primitives = [
        str(item) if type(item) is dict else (type(item), item)
        for item in encoded
        if not isinstance(item, (dict, list)) or type(item) is dict and item.get("$") == "float"
    ]
    if len(set(primitives)) < len(primitives):
        raise unsupported(value, f"Two of its {what} are the same without their types")


def fields(names_of):
    """Encodes an object by its attributes."""

    def encode(encoder, value):
        encoder.enter(value)
        try:
            return encoder.record((name, getattr(value, name)) for name in names_of(value))
        finally:
            encoder.leave(value)

    return encode


def binary(encoder, value):
    return {"$": "bytes", "v": encoder.binary(value if type(value) is bytes else bytes(value))}


def numbers(encoder, value):
    code = {"f": "f", "d": "f"}.get(value.typecode, "u" if value.typecode in "BHILQ" else "i")
    if value.typecode in "uw":
        return encoder.encode(value.tolist())
    return encoder.array(f"{code}{value.itemsize}", [len(value)], value.tobytes())


def moment(encoder, value):
    zone = getattr(value.tzinfo, "key", None)
    tag = {"$": "datetime", "v": value.isoformat()}
    return tag if zone is None else {**tag, "zone": zone}


def duration(encoder, value):
    # Those of pandas have nanoseconds.
    if getattr(value, "nanoseconds", 0):
        raise unsupported(value, INEXACT)
    return {"$": "timedelta", "v": str(value // datetime.timedelta(microseconds=1))}


def no_encoding(encoder, value):
    kind = type(value)
    if issubclass(kind, (collections.abc.Iterator, collections.abc.AsyncIterator)):
        raise unsupported(value, 'It is not a value but yields some: use "iterate"')
    if hasattr(kind, "__arrow_c_stream__"):
        if encoder.arrow:
            return arrow(encoder, value)
        raise unsupported(value, 'It has no encoding but Arrow: ask for it with the option "tables"')
    raise unsupported(value)


# In this order: the first type that matches is used.
ENCODERS = (
    (enum.Enum, enumerated),
    (str, lambda encoder, value: str.__str__(value)),
    (int, lambda encoder, value: encoder.encode(int(value))),
    (float, lambda encoder, value: encoder.encode(float(value))),
    ((bytes, bytearray, memoryview), binary),
    (array.array, numbers),
    (datetime.datetime, moment),
    (datetime.date, lambda encoder, value: {"$": "date", "v": value.isoformat()}),
    (datetime.time, lambda encoder, value: value.isoformat()),
    (datetime.timedelta, duration),
    (decimal.Decimal, lambda encoder, value: {"$": "decimal", "v": str(value)}),
    ((uuid.UUID, pathlib.PurePath), lambda encoder, value: str(value)),
    (collections.abc.Mapping, mapping),
    ((list, tuple, collections.abc.MappingView), sequence),
    (collections.abc.Set, collection),
    (collections.abc.Sequence, sequence),
)


def find(value, kind):
    """Returns the function that encodes values of a type."""
    encode = of_library(value, kind)
    if encode is not None:
        return encode
    if issubclass(kind, tuple) and hasattr(kind, "_fields"):
        return fields(lambda value: value._fields)
    if dataclasses.is_dataclass(kind):
        return fields(lambda value: [field.name for field in dataclasses.fields(value)])
    return next((encode for types, encode in ENCODERS if issubclass(kind, types)), no_encoding)
