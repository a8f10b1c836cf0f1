"""The requests of `evaluate`, `set`, `call` and `iterate` in the kernel.

Runs in the kernel, as a module that no variable of the user refers to. What carries the requests is an `Exchange`.
"""

import ast
import builtins
import importlib
import inspect
import linecache
import types
from typing import Any

from effect_jupyter.values.codec import Encoder
from effect_jupyter.values.decoder import decode
from effect_jupyter.values.errors import Unsupported, shown
from effect_jupyter.values.iterators import interruptible, is_awaitable, rows_or_elements

# Maximum bytes of a message that the client accepts.
MAX_BYTES = 500_000_000

compiled = {}
# The number of the next expression.
number = 0
iterators = {}


class Exchange:
    """Carries one request: the shell whose variables it concerns, and the function that takes its answers.

    `is_in_task` tells whether a task of asyncio runs the request. If not, the coroutine of the request yields None once,
    before it awaits something, and continues in a task.
    """

    def __init__(self, shell, send, is_in_task):
        self.shell = shell
        self.is_in_task = is_in_task
        self._send = send

    def answer(self, content, text=b"", buffers=()):
        total = len(text) + sum(map(len, buffers))
        if total > MAX_BYTES:
            raise ValueError(f"The value has {total} bytes, more than a message can carry; take it in parts by iterate")
        self._send(content, [text, *buffers])

    def answer_result(self, value, request):
        if request["discard"]:
            return self.answer({"kind": "done"})
        encoder = Encoder(request["arrow"])
        with interruptible():
            text = encoder.text(value)
        self.answer({"kind": "value"}, text, encoder.buffers)

    async def result_of(self, awaitable):
        await self.enter_task()
        return await awaitable

    @types.coroutine
    def enter_task(self):
        if not self.is_in_task:
            self.is_in_task = True
            yield


async def run(exchange, take):
    """Runs the request of which `take` returns the parts, JSON first. Returns the exception of the code, if it raised."""
    try:
        parts = take()
        request = decode(parts[0], parts[1:])
        operation = OPERATIONS[request["operation"]]
    except Unsupported as error:
        return exchange.answer({"kind": "unsupported", **error.describe()})
    except Exception as error:
        return exchange.answer({"kind": "unreadable", "detail": f"{type(error).__name__}: {error}"})
    try:
        return await operation(request, exchange)
    except Unsupported as error:
        return exchange.answer({"kind": "unsupported", **error.describe()})
    except BaseException as error:
        return shown(error, exchange.shell)


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


async def value_of(source, exchange):
    code = compile_expression(source)
    with interruptible():
        value = eval(code, exchange.shell.user_ns)
    if code.co_flags & inspect.CO_COROUTINE:
        value = await exchange.result_of(value)
    # An awaitable has no encoding, so that it is awaited.
    return await exchange.result_of(value) if is_awaitable(value) else value


async def evaluate(request, exchange):
    exchange.answer_result(await value_of(request["expression"], exchange), request)


async def assign(request, exchange):
    exchange.shell.user_ns[request["name"]] = request["value"]
    exchange.answer({"kind": "done"})


def find_callable(name, names):
    module, colon, attributes = name.rpartition(":")
    first, *rest = attributes.split(".")
    if colon:
        found = getattr(importlib.import_module(module), first)
    elif first in names:
        found = names[first]
    elif hasattr(builtins, first):
        found = getattr(builtins, first)
    else:
        raise NameError(f"name {first!r} is not defined", name=first)
    for attribute in rest:
        found = getattr(found, attribute)
    return found


async def call(request, exchange):
    with interruptible():
        result = find_callable(request["callable"], exchange.shell.user_ns)(*request["args"], **request["kwargs"])
    if is_awaitable(result):
        result = await exchange.result_of(result)
    exchange.answer_result(result, request)


async def pull(request, exchange):
    key, size, limit = request["key"], request["size"], request["limit"]
    if "expression" in request:
        expression = request["expression"]
        iterators[key] = rows_or_elements(await value_of(expression, exchange), expression, size, limit)
    iterator = iterators[key]
    if iterator.is_async:
        await exchange.enter_task()
    if await iterator.pull(size, limit, request["arrow"], exchange.answer):
        del iterators[key]
        await finish(iterator, exchange)


async def close(request, exchange):
    iterator = iterators.pop(request["key"], None)
    if iterator is not None:
        await finish(iterator, exchange)
    exchange.answer({"kind": "done"})


async def finish(iterator, exchange):
    closing = iterator.close()
    if is_awaitable(closing):
        await exchange.result_of(closing)


OPERATIONS = {"evaluate": evaluate, "set": assign, "call": call, "pull": pull, "close": close}
