"""Runs requests for values in the turn of cells, with the output, interrupts, exceptions and hooks of a cell.

IPython parses and compiles nothing for them, and the answers are part of the reply.
"""

import asyncio
import builtins
import contextlib
import importlib.util
import os
import sys
from types import ModuleType
from typing import Any

from IPython.core.interactiveshell import ExecutionInfo, ExecutionResult

from effect_jupyter.kernel.interrupts import Interrupt
from effect_jupyter.kernel.output import output
from effect_jupyter.kernel.threads import resumed

REQUEST, REPLY = "effect_jupyter_value_request", "effect_jupyter_value_reply"
MODULES = ("errors", "libraries", "codec", "decoder", "iterators", "requests")
# The cell that hooks are told of.
CELL = "await __effect_jupyter_values__.run()"


def load(names):
    """Imports modules of values, and returns the last one. Later changes of the built-ins do not affect them."""
    own, module = dict(vars(builtins)), ModuleType("none")
    for name in names:
        spec: Any = importlib.util.find_spec(f"effect_jupyter.values.{name}")
        module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
        vars(module)["__builtins__"] = own
        spec.loader.exec_module(module)
    return module


requests: Any = load(MODULES)


def end_fork(error):
    """Ends the forked process as a program ends whose code raised this exception, or none."""
    code = error.code if isinstance(error, SystemExit) else int(error is not None)
    with contextlib.suppress(Exception):
        if not (code is None or isinstance(code, int)):
            print(code, file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code & 255 if isinstance(code, int) else int(code is not None))


class Values:
    """The values of a kernel."""

    def __init__(self, kernel, sender):
        self._kernel = kernel
        self._sender = sender

    async def run(self, channel, ident, parent):
        answers, buffers, process = [], [], os.getpid()

        def send(content, parts):
            answers.append({**content, "buffers": len(parts)})
            buffers.extend(parts)

        shell = self._kernel.shell
        exchange = requests.Exchange(shell, send, is_in_task=False)
        failure = await self._run_as_cell(exchange, parent)
        is_child = os.getpid() != process
        error = failure and failure.error
        if failure is not None and not (is_child and isinstance(error, SystemExit)):
            with contextlib.suppress(Exception):
                shell.showtraceback((type(failure), failure, failure.__traceback__), running_compiled_code=True)
        if is_child:
            end_fork(error)
        # The code may have replaced `sys.stdout`.
        output.finish()
        content = {
            "status": "ok",
            "execution_count": shell.execution_count - 1,
            "answers": answers,
            "payload": shell.payload_manager.read_payload(),
        }
        shell.payload_manager.clear_payload()
        if failure is not None:
            kind, text = type(failure).__name__, str(failure)
            content.update(status="error", ename=kind, evalue=text, traceback=failure.lines)
        self._sender.send(channel, REPLY, content, parent, buffers=buffers)

    async def _run_as_cell(self, exchange, parent):
        """Returns the exception that ended the code, if there was one."""
        kernel, shell, failure = self._kernel, exchange.shell, None
        info = ExecutionInfo(CELL, False, False, True, None)
        shell.events.trigger("pre_execute")
        shell.events.trigger("pre_run_cell", info)
        kernel._forward_input(parent["content"].get("allow_stdin", False))
        try:
            with shell.builtin_trap, shell.display_trap:
                failure = await self._run_code(requests.run(exchange, lambda: parent["buffers"]))
        except BaseException as error:  # an interrupt between two steps of the code
            failure = requests.shown(error, shell)
        finally:
            shell.events.trigger("post_execute")
            result = ExecutionResult(info)
            result.error_in_exec = failure
            shell.events.trigger("post_run_cell", result)
            kernel._restore_input()
        return failure

    async def _run_code(self, coroutine):
        """Runs a coroutine, in a task from the first time it awaits something."""
        with Interrupt.let_through():
            try:
                coroutine.send(None)
            except StopIteration as end:
                return end.value
        loop: Any = asyncio.get_running_loop()
        task = loop.create_task(resumed(coroutine))
        Interrupt.is_in_code = True
        try:
            with self._kernel._cancel_on_sigint(task):
                return await task
        finally:
            Interrupt.is_in_code = False
