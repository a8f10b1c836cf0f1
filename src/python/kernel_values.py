"""What `evaluate`, `set`, `call` and `iterate` do in the kernel.

Runs inside the kernel, as a module that no name of the user leads to. A request is an execution of `await run()`,
whose arguments and binary parts are the buffers of its message; the answer is a message with buffers too.
"""

import ast
import builtins
import importlib
import inspect
import linecache
import signal
import sys
import threading
import time

from effect_jupyter_values_codec import Encoder, Unsupported, to_bytes
from effect_jupyter_values_decoder import decode
from IPython import get_ipython

MIME = "application/vnd.effect-jupyter.value+json"
# Larger messages do not get through to the client.
MAX_BYTES = 500_000_000
# How long the elements of a batch may be gathered, in seconds: a slow iterable is not to look like a stuck one.
PATIENCE = 0.05
OURS = (__name__, Encoder.__module__, decode.__module__)

shell = get_ipython()
# The parts of a request that came in messages before it.
kept = []
compiled = {}
iterators = {}


def keep(first):
    """Takes a part of the next request, which is too large for one message."""
    if first:
        kept.clear()
    kept.extend(bytes(part) for part in shell.kernel.get_parent("shell")["buffers"])


def take_request():
    """The arguments of the request that runs."""
    parent = shell.kernel.get_parent("shell")
    parts, sizes = parent["buffers"], parent["metadata"].get("sizes")
    if sizes is None:
        kept.clear()
        return decode(parts[0], parts[1:])
    joined = []
    for size in sizes:
        taken, length = [], 0
        while length < size:
            taken.append(kept.pop(0))
            length += len(taken[-1])
        joined.append(b"".join(taken))
    return decode(joined[0], joined[1:])


def answer(content, text="", buffers=()):
    total = len(text) + sum(map(len, buffers))
    if total > MAX_BYTES:
        raise ValueError(f"The value has {total} bytes, more than a message can carry; take it in parts by iterate")
    kernel = shell.kernel
    kernel.session.send(
        kernel.iopub_socket,
        "display_data",
        {"data": {MIME: content}, "metadata": {}, "transient": {}},
        parent=kernel.get_parent("shell"),
        ident=b"display_data",
        buffers=[to_bytes(text), *buffers],
    )


class interruptible:
    """Within it an interrupt is a KeyboardInterrupt at once.

    ipykernel takes what awaits for code that is awaiting all the time: an interrupt only cancels it at its next pause.
    """

    def __enter__(self):
        self.is_main = threading.current_thread() is threading.main_thread()
        if self.is_main:
            self.handler = signal.signal(signal.SIGINT, signal.default_int_handler)

    def __exit__(self, *error):
        if self.is_main:
            signal.signal(signal.SIGINT, self.handler)


def answer_result(value, request):
    if request["discard"]:
        return answer({"kind": "done"})
    encoder = Encoder(request["arrow"])
    with interruptible():
        text = encoder.text(value)
    answer({"kind": "value"}, text, encoder.buffers)


async def run():
    try:
        request = take_request()
        await OPERATIONS[request["operation"]](request)
    except Unsupported as error:
        answer({"kind": "unsupported", **error.describe()})
    except BaseException as error:
        show_without_us(error)
        raise


def show_without_us(error):
    """Has the traceback begin with the code of the user."""
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_globals.get("__name__") in OURS:
        frames = frames.tb_next

    def render():
        object.__delattr__(error, "_render_traceback_")
        return shell.InteractiveTB.structured_traceback(type(error), error, frames, tb_offset=0)

    # Its class may have a say in this, as that of a frozen dataclass.
    object.__setattr__(error, "_render_traceback_", render)
    if isinstance(error, SyntaxError) and frames is None:
        # IPython shows these in another way, with all frames if code was running.
        def show(filename=None, running_compiled_code=False):
            del shell.showsyntaxerror
            shell.showsyntaxerror(filename)

        shell.showsyntaxerror = show


def compile_expression(source):
    code = compiled.get(source)
    if code is not None:
        return code
    name = f"<expression {len(compiled)}>"
    text = source.strip()
    try:
        code = compile(text, name, "eval", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    except SyntaxError as error:
        try:
            # In brackets an expression may have several lines. In those of two kinds it cannot close them itself.
            for text in (f"[\n{source}\n]", f"(\n{source}\n)"):
                code = compile(text, name, "eval", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        except SyntaxError:
            raise error from None
    if len(compiled) >= 256:
        for old in compiled.values():
            linecache.cache.pop(old.co_filename, None)
        compiled.clear()
    # Without a time of change the entry stays when files are checked for changes.
    linecache.cache[name] = (len(text), None, text.splitlines(True), name)
    compiled[source] = code
    return code


async def value_of(source):
    code = compile_expression(source)
    with interruptible():
        value = eval(code, shell.user_ns)
    if code.co_flags & inspect.CO_COROUTINE:
        value = await value
    # Nothing else could be done with it: it has no encoding.
    return await value if inspect.isawaitable(value) else value


async def evaluate(request):
    answer_result(await value_of(request["expression"]), request)


async def assign(request):
    shell.user_ns[request["name"]] = request["value"]
    answer({"kind": "done"})


def find_callable(name):
    module, colon, attributes = name.rpartition(":")
    first, *rest = attributes.split(".")
    if colon:
        found = getattr(importlib.import_module(module), first)
    elif first in shell.user_ns:
        found = shell.user_ns[first]
    elif hasattr(builtins, first):
        found = getattr(builtins, first)
    else:
        raise NameError(f"name {first!r} is not defined", name=first)
    for attribute in rest:
        found = getattr(found, attribute)
    return found


async def call(request):
    with interruptible():
        result = find_callable(request["callable"])(*request["args"], **request["kwargs"])
    if inspect.isawaitable(result):
        result = await result
    answer_result(result, request)


class Rows:
    """The rows of a DataFrame, encoded as slices of it."""

    def __init__(self, frame):
        self.frame = frame
        self.position = 0

    async def pull(self, size, limit, arrow):
        rows = self.frame.iloc[self.position : self.position + size]
        encoder = Encoder(arrow)
        try:
            with interruptible():
                # By Arrow a slice is one element.
                text = encoder.text([rows] if arrow else rows)
        except Unsupported as error:
            row = int(error.path.pop()[1:-1]) if error.path else 0
            if row > 0:
                return await self.pull(row, limit, arrow)
            error.path.append(f"[{self.position}]")
            raise
        if encoder.bytes > limit and len(rows) > 1:
            return await self.pull(max(1, len(rows) // 2), limit, arrow)
        self.position += len(rows)
        done = self.position >= len(self.frame)
        answer({"kind": "batch", "done": done}, text, encoder.buffers)
        return done

    async def close(self):
        self.frame = None


class Elements:
    """The elements of an iterable or an asynchronous one."""

    def __init__(self, iterable):
        self.is_async = hasattr(iterable, "__aiter__")
        self.iterator = aiter(iterable) if self.is_async else iter(iterable)
        self.count = 0

    async def pull(self, size, limit, arrow):
        encoder = Encoder(arrow)
        elements = []
        deadline = time.monotonic() + PATIENCE

        def take(element):
            """Whether there is room for more."""
            self.count += 1
            elements.append(encoder.text(element))
            return len(elements) < size and encoder.bytes < limit and time.monotonic() < deadline

        done = False
        try:
            if self.is_async:
                while await self.take_next(take):
                    pass
            else:
                with interruptible():
                    while take(next(self.iterator)):
                        pass
        except (StopIteration, StopAsyncIteration):
            done = True
        except Unsupported as error:
            error.path.append(f"[{self.count - 1}]")
            raise
        finally:
            # Also before an error: the elements are there.
            answer({"kind": "batch", "done": done}, f"[{','.join(elements)}]", encoder.buffers)
        return done

    async def take_next(self, take):
        element = await anext(self.iterator)
        with interruptible():
            return take(element)

    async def close(self):
        if inspect.isasyncgen(self.iterator):
            await self.iterator.aclose()
        elif inspect.isgenerator(self.iterator):
            with interruptible():
                self.iterator.close()


def is_frame(value):
    return isinstance(value, getattr(sys.modules.get("pandas"), "DataFrame", ()))


async def pull(request):
    key = request["key"]
    if "expression" in request:
        value = await value_of(request["expression"])
        if isinstance(value, getattr(sys.modules.get("pyarrow"), "Table", ())):
            value = value.to_batches(max_chunksize=request["size"])
        iterators[key] = Rows(value) if is_frame(value) else Elements(value)
    if await iterators[key].pull(request["size"], request["limit"], request["arrow"]):
        del iterators[key]


async def close(request):
    iterator = iterators.pop(request["key"], None)
    if iterator is not None:
        await iterator.close()
    answer({"kind": "done"})


OPERATIONS = {"evaluate": evaluate, "set": assign, "call": call, "pull": pull, "close": close}
