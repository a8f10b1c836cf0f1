"""The requests of `evaluate`, `set`, `call` and `iterate` in the kernel.

Runs in the kernel, as a module that no variable of the user refers to. A request is an execution of `await run()`,
whose arguments and binary parts are the buffers of its message; the answer is a message with buffers as well.
"""

import ast
import builtins
import importlib
import inspect
import linecache
from typing import Any

from IPython import get_ipython

from effect_jupyter.values.codec import Encoder
from effect_jupyter.values.decoder import decode
from effect_jupyter.values.errors import Unsupported, shown
from effect_jupyter.values.iterators import interruptible, is_awaitable, rows_or_elements

MIME = "application/vnd.effect-jupyter.value+json"
# Maximum bytes of a message that the client accepts.
MAX_BYTES = 500_000_000

shell = get_ipython()
if not all(hasattr(getattr(shell, "kernel", None), name) for name in ("get_parent", "session", "iopub_socket")):
    raise ImportError("Values travel through ipykernel, which this kernel is not made of")
# The parts of a request that arrived in earlier messages.
kept = []
compiled = {}
# The number of the next expression.
number = 0
iterators = {}


def keep(first):
    """Stores a part of the next request, which is too large for one message."""
    if first:
        kept.clear()
    kept.extend(bytes(part) for part in shell.kernel.get_parent("shell")["buffers"])


def take_request():
    """Returns the arguments of the current request."""
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


def answer(content, text=b"", buffers=()):
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
        buffers=[text, *buffers],
    )


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
        operation = OPERATIONS[request["operation"]]
    except Unsupported as error:
        return answer({"kind": "unsupported", **error.describe()})
    except Exception as error:
        return answer({"kind": "unreadable", "detail": f"{type(error).__name__}: {error}"})
    try:
        return await operation(request)
    except Unsupported as error:
        return answer({"kind": "unsupported", **error.describe()})
    except BaseException as error:
        failure = shown(error, shell)
    # Raised outside of the handler, so that it has no context.
    raise failure


def compile_expression(source):
    global number
    code = compiled.get(source)
    if code is not None:
        return code
    name = f"<expression {number}>"
    text = source.strip()
    keep_source(name, text)
    try:
        code = compile(text, name, "eval", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    except SyntaxError as error:
        try:
            # In brackets an expression may have several lines. With two kinds of them it cannot close them itself.
            listed: Any = compile(f"[\n{source}\n]", name, "eval", ast.PyCF_ONLY_AST)
            text = f"(\n{source}\n)"
            code = compile(text, name, "eval", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        except SyntaxError:
            raise error from None
        if isinstance(listed.body, ast.List) and not listed.body.elts:  # blanks and comments
            raise
        keep_source(name, text)
    if len(compiled) >= 256:
        for old in compiled.values():
            linecache.cache.pop(old.co_filename, None)
        compiled.clear()
    number += 1
    compiled[source] = code
    return code


def keep_source(name, text):
    # An entry without a modification time is not removed by `linecache.checkcache`.
    linecache.cache[name] = (len(text), None, text.splitlines(True), name)


async def value_of(source):
    code = compile_expression(source)
    with interruptible():
        value = eval(code, shell.user_ns)
    if code.co_flags & inspect.CO_COROUTINE:
        value = await value
    # An awaitable has no encoding, so that it is awaited.
    return await value if is_awaitable(value) else value


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
    if is_awaitable(result):
        result = await result
    answer_result(result, request)


async def pull(request):
    key, size, limit = request["key"], request["size"], request["limit"]
    if "expression" in request:
        expression = request["expression"]
        iterators[key] = rows_or_elements(await value_of(expression), expression, size, limit)
    iterator = iterators[key]
    if await iterator.pull(size, limit, request["arrow"], answer):
        del iterators[key]
        await iterator.close()


async def close(request):
    iterator = iterators.pop(request["key"], None)
    if iterator is not None:
        await iterator.close()
    answer({"kind": "done"})


OPERATIONS = {"evaluate": evaluate, "set": assign, "call": call, "pull": pull, "close": close}
