"""Encodes values of NumPy, pandas, pydantic and Arrow.

Runs in the kernel, as a module that no variable of the user refers to. A library is only used if the code of the user
has imported it.
"""

import datetime
import sys
from typing import Any

from effect_jupyter.values.errors import Unsupported, quote, step_to, unsupported

INEXACT = "It is finer than microseconds, or out of the range of datetime and timedelta"


def of_library(value, kind):
    """Returns the function that encodes values of a type of a library that the user has imported."""
    pandas = sys.modules.get("pandas")
    if pandas is not None:
        if value is getattr(pandas, "NaT", pandas) or value is getattr(pandas, "NA", pandas):
            return lambda encoder, value: None
        if issubclass(kind, class_of("pandas", "DataFrame")):
            return frame
        if issubclass(kind, class_of("pandas", "Series")):
            return column
        if issubclass(kind, class_of("pandas", "Index")):
            return lambda encoder, value: column(encoder, value.to_series())
    if issubclass(kind, class_of("numpy", "ndarray")):
        return numpy_array
    if issubclass(kind, class_of("numpy", "generic")):
        return numpy_scalar
    if issubclass(kind, class_of("pydantic", "BaseModel")):
        dump = "model_dump" if hasattr(kind, "model_dump") else "dict"
        return lambda encoder, value: encoder.encode(getattr(value, dump)())
    return None


def class_of(library: str, name: str) -> Any:
    """Returns a class of an imported library; None for something else in its place, such as a mock."""
    found = getattr(sys.modules.get(library), name, None)
    return found if issubclass(type(found), type) else ()


def numpy_scalar(encoder, value):
    import numpy

    if value.dtype.kind in "Mm":
        return encoder.encode(times(numpy.asarray(value)))
    longdouble: Any = numpy.longdouble
    plain = float(value) if issubclass(type(value), longdouble) else value.item()
    if isinstance(plain, (tuple, complex)):
        raise unsupported(value)
    return encoder.encode(plain)


def numpy_array(encoder, value):
    import numpy

    kind = value.dtype.kind
    if issubclass(type(value), numpy.ma.MaskedArray) or value.ndim == 0 or kind in "OUSTMm" or value.dtype.names:
        return encoder.encode(plain(value))
    if kind not in "iufb":
        raise Unsupported(f"numpy.ndarray of {value.dtype}", "It has no encoding")
    # Half and extended precision are converted to types that JavaScript has arrays for.
    size = {2: 4, 16: 8}.get(value.itemsize, value.itemsize) if kind == "f" else value.itemsize
    data = value.astype(f"<{kind}{size}", copy=False).tobytes()
    return encoder.array(f"{kind}{size}", list(value.shape), data)


def plain(array):
    """Returns a NumPy array as nested lists of Python values."""
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
    """Returns dates and durations of NumPy as those of Python, if they are in range."""
    import numpy

    kind = array.dtype.kind
    micros = array.astype(f"{kind}8[us]")
    gone = numpy.isnat(array)
    # The conversion wraps values out of range and truncates finer ones.
    exact = gone | (micros.astype(array.dtype) == array)
    if kind == "M":
        first, last = (
            numpy.datetime64(end.isoformat(), "us") for end in (datetime.datetime.min, datetime.datetime.max)
        )
        exact &= gone | ((micros >= first) & (micros <= last))
    for index in numpy.argwhere(~numpy.ma.filled(exact, True))[:1].tolist():
        error = Unsupported(f"numpy.{'datetime64' if kind == 'M' else 'timedelta64'}", INEXACT)
        error.path = [f"[{step}]" for step in reversed(index)]
        raise error
    # Days are converted to dates.
    is_date = kind == "M" and numpy.datetime_data(array.dtype)[0] == "D"
    return (array if is_date else micros).tolist()


def column(encoder, series):
    """Returns a pandas Series as an array. Missing values are None, except NaN in columns of floats."""
    if getattr(series.dtype, "kind", "O") in "iufb" and type(series.dtype).__module__.startswith("numpy"):
        return encoder.encode(series.to_numpy())
    values = series.astype(object)
    missing = series.isna().tolist()
    return encoder.encode([None if gone else value for value, gone in zip(values.tolist(), missing)])


def frame(encoder, value):
    if encoder.arrow:
        return arrow(encoder, value)
    names = [name if type(name) is str else str(name) for name in value.columns]
    columns = []
    for index, name in enumerate(names):
        if name in names[:index]:
            raise unsupported(value, f"Two of its columns are named {quote(name)}")
        try:
            columns.append(column(encoder, value.iloc[:, index]))
        except Unsupported as error:
            error.path[-1:] = [step_to(name), *error.path[-1:]]
            raise
    return {"$": "frame", "columns": names, "rows": len(value), "v": columns}


def arrow(encoder, value):
    """Returns a table as the bytes of an Arrow IPC stream, if the client requested that form."""
    import pyarrow  # pyright: ignore[reportMissingImports]

    try:
        if issubclass(type(value), pyarrow.RecordBatch):
            table = pyarrow.Table.from_batches([value])
        elif hasattr(type(value), "__arrow_c_stream__"):
            table = pyarrow.table(value)
        else:
            table = pyarrow.Table.from_pandas(value)
    except (pyarrow.ArrowInvalid, TypeError) as error:
        # Columns have the same interface as tables.
        raise unsupported(value, f"Arrow does not take it for a table: {error}") from None
    sink = pyarrow.BufferOutputStream()
    with pyarrow.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return {"$": "bytes", "v": encoder.binary(memoryview(sink.getvalue()))}
