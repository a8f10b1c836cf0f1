"""The iterators of `iterate`: the elements of an iterable or the rows of a table, in batches.

Runs in the kernel, as a module that no variable of the user refers to.
"""

import ast
import importlib
import inspect
import signal
import threading
import time
import types
from typing import Any

from effect_jupyter.values.codec import Encoder
from effect_jupyter.values.errors import Unsupported, interrupts
from effect_jupyter.values.libraries import class_of

# Seconds after which a batch ends early, so that the elements of a slow iterable arrive.
BATCH_TIME = 0.05
# Number of rows by which the size of the others is estimated.
SAMPLE = 64

END = object()


try:
    # The functions of `signal` convert to enums, which takes longer than everything else.
    signals: Any = importlib.import_module("_signal")
except ImportError:
    signals = signal
set_handler, getsignal = signals.signal, signals.getsignal


class interruptible:
    """A context in which an interrupt raises KeyboardInterrupt at once, also one that came before.

    For code that awaits, ipykernel would only cancel its task, which takes effect at the next `await`.
    """

    handler = signal.default_int_handler

    def __enter__(self):
        is_main = threading.current_thread() is threading.main_thread()
        if is_main and getsignal(signal.SIGINT) is not self.handler:
            self.handler = set_handler(signal.SIGINT, self.handler)
        if is_main and interrupts is not None:
            interrupts.Interrupt.take()

    def __exit__(self, *error):
        if self.handler not in (signal.default_int_handler, None):
            set_handler(signal.SIGINT, self.handler)


def is_awaitable(value):
    """Tells what `inspect.isawaitable` does, without running code of the value."""
    kind = type(value)
    if kind is types.GeneratorType:
        return bool(value.gi_code.co_flags & inspect.CO_ITERABLE_COROUTINE)
    return hasattr(kind, "__await__")


def only_names(expression):
    """Tells whether an expression only names an object of the user: a variable, an attribute or an item of one."""
    tree: Any = compile(f"(\n{expression}\n)", "<expression>", "eval", ast.PyCF_ONLY_AST)
    node = tree.body
    while isinstance(node, (ast.Attribute, ast.Subscript)):
        node = node.value
    return isinstance(node, (ast.Name, ast.NamedExpr))


class Rows:
    """The rows of a DataFrame, encoded as slices of it."""

    is_async = False

    def __init__(self, frame):
        self.frame: Any = frame
        self.position = 0
        # Estimated bytes of a row.
        self.width = None

    async def pull(self, size, limit, arrow, answer):
        if self.width is None and size > SAMPLE:
            encoder = Encoder(arrow)
            sample = self.frame.iloc[:SAMPLE]
            try:
                with interruptible():
                    encoder.text([sample])
            except Unsupported:
                pass  # it has its turn
            self.width = encoder.bytes / max(1, len(sample))
        count = min(size, int(limit / self.width)) if self.width else size
        return await self.pull_rows(max(1, count), limit, arrow, answer)

    async def pull_rows(self, count, limit, arrow, answer):
        rows = self.frame.iloc[self.position : self.position + count]
        encoder = Encoder(arrow)
        try:
            with interruptible():
                # With Arrow a slice is one element.
                text = encoder.text([rows] if arrow else rows)
        except Unsupported as error:
            row = int(error.path.pop()[1:-1]) if error.path else 0
            if row > 0:
                return await self.pull_rows(row, limit, arrow, answer)
            error.path.append(f"[{self.position}]")
            raise
        # A batch may be somewhat larger, as rows differ in size.
        if encoder.bytes > 2 * limit and len(rows) > 1:
            return await self.pull_rows(len(rows) // 2, limit, arrow, answer)
        if len(rows) > 0:
            self.width = encoder.bytes / len(rows)
        self.position += len(rows)
        done = self.position >= len(self.frame)
        answer({"kind": "batch", "done": done}, text, encoder.buffers)
        return done

    def close(self):
        self.frame = None


class Elements:
    """The elements of an iterable, which may be asynchronous."""

    def __init__(self, iterable, is_named):
        self.is_async = hasattr(type(iterable), "__aiter__")
        with interruptible():
            self.iterator = aiter(iterable) if self.is_async else iter(iterable)
        # A generator is closed, because it has run ahead of the consumer; a file of the user is not.
        is_closed = not is_named or type(self.iterator) in (types.GeneratorType, types.AsyncGeneratorType)
        names = ("aclose", "close") if self.is_async else ("close",)
        self.end = next((name for name in names if is_closed and hasattr(type(self.iterator), name)), None)
        self.count = 0

    async def pull(self, size, limit, arrow, answer):
        encoder = Encoder(arrow)
        elements = []
        deadline = time.monotonic() + BATCH_TIME

        def take(element):
            """Tells whether the batch is not full."""
            self.count += 1
            elements.append(encoder.text(element))
            return len(elements) < size and encoder.bytes < limit and time.monotonic() < deadline

        done = False
        try:
            if self.is_async:
                while (element := await self.next_later()) is not END:
                    with interruptible():
                        if not take(element):
                            break
            else:
                with interruptible():
                    while (element := next(self.iterator, END)) is not END and take(element):
                        pass
            done = element is END
        except Unsupported as error:
            error.path.append(f"[{self.count - 1}]")
            raise
        finally:
            # Also before an error, so that the elements before it arrive.
            answer({"kind": "batch", "done": done}, b"[%b]" % b",".join(elements), encoder.buffers)
        return done

    async def next_later(self):
        try:
            return await anext(self.iterator)
        except StopAsyncIteration:
            return END

    def close(self):
        """Ends the iterator. An asynchronous one returns what is to be awaited for that."""
        if self.end is None:
            return None
        with interruptible():
            return getattr(self.iterator, self.end)()


def rows_or_elements(value, expression, size, limit):
    """Returns the iterator of the elements of a value."""
    if issubclass(type(value), class_of("pandas", "DataFrame")):
        return Rows(value)
    if issubclass(type(value), class_of("pyarrow", "Table")):
        rows = limit * value.num_rows // max(1, value.nbytes)
        return Elements(value.to_batches(max_chunksize=max(1, min(size, rows))), False)
    return Elements(value, only_names(expression))
