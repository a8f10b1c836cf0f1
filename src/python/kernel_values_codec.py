"""Values of Python as JSON with tags and buffers.

Runs inside the kernel, as a module that no name of the user leads to. Uses the standard library alone: libraries
are only looked for among the modules that the code of the user has imported.

A JSON object with the key "$" stands for what JSON does not have; "v" is its value, or the index of its buffer.
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

# Beyond it not every integer is a number of JavaScript.
SAFE = 2**53 - 1
# How deep values may be nested: well within what the parsers of both sides can do.
MAX_DEPTH = 200
INEXACT = "It is finer than microseconds, or out of the range of datetime and timedelta"

dumps = json.JSONEncoder(ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":")).encode
surrogates = re.compile("[\ud800-\udfff]")


class Unsupported(TypeError):
    """A value that has no encoding; `path` leads to it, its last step first."""

    def __init__(self, kind, detail):
        super().__init__(detail)
        self.kind = kind
        self.detail = detail
        self.path = []

    def describe(self):
        return {"valueType": self.kind, "path": "$" + "".join(reversed(self.path)), "detail": self.detail}


def name_of(kind):
    module = kind.__module__
    return kind.__qualname__ if module in ("builtins", "__main__") else f"{module}.{kind.__qualname__}"


def unsupported(value, detail="It has no encoding"):
    return Unsupported(name_of(type(value)), detail)


def step_to(key):
    if isinstance(key, str):
        return f".{key}" if key.isidentifier() else f"[{json.dumps(key)}]"
    return f"[{key!r}]"


def to_bytes(text):
    """JSON text as UTF-8, which has no halves of surrogate pairs: they become escapes."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        return surrogates.sub(lambda match: f"\\u{ord(match[0]):04x}", text).encode()


class Encoder:
    """Encodes values that travel in one message."""

    def __init__(self, arrow=False):
        self.buffers = []
        self.bytes = 0
        self.within = set()
        self.arrow = arrow
        self.known = {}

    def text(self, value):
        """The JSON text of a value; its binary parts are added to the buffers."""
        text = dumps(self.encode(value))
        self.bytes += len(text)
        return text

    def encode(self, value):
        kind = type(value)
        if kind is str or value is None or kind is bool:
            return value
        if kind is int:
            return value if -SAFE <= value <= SAFE else {"$": "int", "v": f"{value:x}"}
        if kind is float:
            # False for the infinities and for what is not a number.
            return value if value - value == 0 else {"$": "float", "v": repr(value)}
        encode = self.known.get(kind)
        if encode is None:
            encode = self.known[kind] = find(value, kind)
        return encode(self, value)

    def binary(self, data):
        """Takes bytes that nobody changes any more: they may be sent after this request."""
        self.bytes += len(data)
        self.buffers.append(data)
        return len(self.buffers)

    def enter(self, value):
        """Begins a level. What goes on below is called from where this is: each frame counts MAX_DEPTH times."""
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
        done = {}
        for key, value in pairs:
            try:
                done[key] = self.encode(value)
            except Unsupported as error:
                error.path.append(step_to(key))
                raise
        return {"$": "record", "v": list(done.items())} if "$" in done else done


def sequence(encoder, value):
    encoder.enter(value)
    try:
        return encoder.items(value)
    finally:
        encoder.leave(value)


def mapping(encoder, value):
    encoder.enter(value)
    try:
        if all(type(key) is str for key in value):
            return encoder.record(value.items())
        if all(isinstance(key, str) and not isinstance(key, enum.Enum) for key in value):
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
    """Refuses what becomes less in JavaScript, where a path and its text are the same."""
    # Only what is no object can be equal to something else, such as two that are not a number.
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
    return tagged_array(encoder, f"{code}{value.itemsize}", [len(value)], value.tobytes())


def tagged_array(encoder, dtype, shape, data):
    return {"$": "array", "dtype": dtype, "shape": shape, "v": encoder.binary(data)}


def moment(encoder, value):
    zone = getattr(value.tzinfo, "key", None)
    tag = {"$": "datetime", "v": value.isoformat()}
    return tag if zone is None else {**tag, "zone": zone}


def duration(encoder, value):
    # Those of pandas have them.
    if getattr(value, "nanoseconds", 0):
        raise unsupported(value, INEXACT)
    return {"$": "timedelta", "v": str(value // datetime.timedelta(microseconds=1))}


def numpy_scalar(encoder, value):
    import numpy

    if value.dtype.kind in "Mm":
        return encoder.encode(times(numpy.asarray(value)))
    plain = float(value) if isinstance(value, numpy.longdouble) else value.item()
    if isinstance(plain, (tuple, complex)):
        raise unsupported(value)
    return encoder.encode(plain)


def numpy_array(encoder, value):
    import numpy

    kind = value.dtype.kind
    if isinstance(value, numpy.ma.MaskedArray) or value.ndim == 0 or kind in "OUSTMm" or value.dtype.names:
        return encoder.encode(plain(value))
    if kind not in "iufb":
        raise Unsupported(f"numpy.ndarray of {value.dtype}", "It has no encoding")
    # Halves and extended floats become what JavaScript has arrays for.
    size = {2: 4, 16: 8}.get(value.itemsize, value.itemsize) if kind == "f" else value.itemsize
    data = value.astype(f"<{kind}{size}", copy=False).tobytes()
    return tagged_array(encoder, f"{kind}{size}", list(value.shape), data)


def plain(array):
    """A NumPy array as nested lists of values of Python."""
    import numpy

    if array.dtype.kind in "Mm":
        return times(array)
    if not array.dtype.names:
        return array.tolist()
    flat = array.reshape(-1)
    columns = []
    for name in array.dtype.names:
        try:
            columns.append(plain(flat[name]))
        except Unsupported as error:
            error.path[-1:] = [step_to(name), *error.path[-1:]]
            raise
    rows = numpy.empty(flat.size, object)
    rows[:] = [dict(zip(array.dtype.names, row)) for row in zip(*columns)]
    return rows.reshape(array.shape).tolist()


def times(array):
    """Dates and durations of NumPy as those of Python, if these can hold them."""
    import numpy

    kind = array.dtype.kind
    micros = array.astype(f"{kind}8[us]")
    gone = numpy.isnat(array)
    # What does not fit wraps, and what is finer is cut.
    exact = gone | (micros.astype(array.dtype) == array)
    if kind == "M":
        first, last = (numpy.datetime64(end.isoformat(), "us") for end in (datetime.datetime.min, datetime.datetime.max))
        exact &= gone | ((micros >= first) & (micros <= last))
    for index in numpy.argwhere(~numpy.ma.filled(exact, True))[:1].tolist():
        error = Unsupported(f"numpy.{'datetime64' if kind == 'M' else 'timedelta64'}", INEXACT)
        error.path = [f"[{step}]" for step in reversed(index)]
        raise error
    # Days are dates and stay so.
    is_date = kind == "M" and numpy.datetime_data(array.dtype)[0] == "D"
    return (array if is_date else micros).tolist()


def column(encoder, series):
    """A pandas Series as an array; what is missing is None where the column has no numbers of its own for it."""
    if getattr(series.dtype, "kind", "O") in "iufb" and type(series.dtype).__module__.startswith("numpy"):
        return encoder.encode(series.to_numpy())
    values = series.astype(object)
    return encoder.items(None if gone else value for value, gone in zip(values.tolist(), series.isna().tolist()))


def frame(encoder, value):
    if encoder.arrow:
        return arrow(encoder, value)
    names = [name if type(name) is str else str(name) for name in value.columns]
    columns = []
    for index, name in enumerate(names):
        if name in names[:index]:
            raise unsupported(value, f"Two of its columns are named {json.dumps(name)}")
        try:
            columns.append(column(encoder, value.iloc[:, index]))
        except Unsupported as error:
            error.path[-1:] = [step_to(name), *error.path[-1:]]
            raise
    return {"$": "frame", "columns": names, "rows": len(value), "v": columns}


def arrow(encoder, value):
    """A table as the bytes of an Arrow IPC stream, for those who asked for it."""
    import pyarrow

    try:
        if isinstance(value, pyarrow.RecordBatch):
            table = pyarrow.Table.from_batches([value])
        elif hasattr(value, "__arrow_c_stream__"):
            table = pyarrow.table(value)
        else:
            table = pyarrow.Table.from_pandas(value)
    except (pyarrow.ArrowInvalid, TypeError) as error:
        # Columns have the same interface.
        raise unsupported(value, f"Arrow does not take it for a table: {error}") from None
    sink = pyarrow.BufferOutputStream()
    with pyarrow.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return {"$": "bytes", "v": encoder.binary(memoryview(sink.getvalue()))}


def of_library(value):
    """How to encode what belongs to a library that the user has imported."""
    numpy, pandas, pydantic = map(sys.modules.get, ("numpy", "pandas", "pydantic"))
    if hasattr(pandas, "DataFrame"):
        if value is pandas.NaT or value is pandas.NA:
            return lambda encoder, value: None
        if isinstance(value, pandas.DataFrame):
            return frame
        if isinstance(value, pandas.Series):
            return column
        if isinstance(value, pandas.Index):
            return lambda encoder, value: column(encoder, value.to_series())
    if hasattr(numpy, "ndarray"):
        if isinstance(value, numpy.ndarray):
            return numpy_array
        if isinstance(value, numpy.generic):
            return numpy_scalar
    if hasattr(pydantic, "BaseModel") and isinstance(value, pydantic.BaseModel):
        dump = "model_dump" if hasattr(value, "model_dump") else "dict"
        return lambda encoder, value: encoder.encode(getattr(value, dump)())
    return None


def no_encoding(encoder, value):
    if isinstance(value, (collections.abc.Iterator, collections.abc.AsyncIterator)):
        raise unsupported(value, 'It is not a value but yields some: use "iterate"')
    if hasattr(value, "__arrow_c_stream__"):
        if encoder.arrow:
            return arrow(encoder, value)
        raise unsupported(value, 'It has no encoding but Arrow: ask for it with the option "tables"')
    raise unsupported(value)


# In order: the first type that fits counts.
ENCODERS = (
    (enum.Enum, lambda encoder, value: encoder.encode(value.value)),
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
    """How to encode values of a type."""
    encode = of_library(value)
    if encode is not None:
        return encode
    if issubclass(kind, tuple) and hasattr(kind, "_fields"):
        return fields(lambda value: value._fields)
    if dataclasses.is_dataclass(kind):
        return fields(lambda value: [field.name for field in dataclasses.fields(value)])
    return next((encode for types, encode in ENCODERS if issubclass(kind, types)), no_encoding)
