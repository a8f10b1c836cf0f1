"""Runs the requests of the client, in place of ipykernel's sockets, threads and event loops.

The event loop runs a request to the main shell in callbacks: one, unless the request awaits something. The thread that
reads the control channel runs a request to it. Each subshell is a thread.
"""

import asyncio
import contextvars
import functools
import inspect
import os
import queue
import sys
import threading
from collections import deque
from typing import Any

from ipykernel.thread import CONTROL_THREAD_NAME

from effect_jupyter.kernel.connection import Acceptor
from effect_jupyter.kernel.interrupts import Interrupt
from effect_jupyter.kernel.messages import Channel, Sender, decoded
from effect_jupyter.kernel.threads import Publisher, Subshells, drive
from effect_jupyter.kernel.values import REQUEST, Values

# Maximum queued requests, beyond which the connection is not read.
MAX_QUEUED = 64
# Maximum seconds of exit handlers when nothing can be sent.
LOST_TIMEOUT = 1.0
# The type of the message after the end of a request for input.
ANSWERED = "effect_jupyter_input_answered"
EXECUTIONS = ("execute_request", REQUEST)
COMMS = ("comm_open", "comm_msg", "comm_close")


class Requests:
    """Receives and runs the requests of the client."""

    def __init__(self, listener, session, flush):
        self.sender = Sender(session, flush)
        self.publisher = Publisher(self.sender)
        self.subshells = Subshells()
        self.stdin = Channel("stdin", self.sender)
        self._session = session
        self._acceptor = Acceptor(listener, session.key)
        self._answer = Channel("shell", self.sender)
        self._control_answer = Channel("control", self.sender)
        self._inputs = queue.SimpleQueue()
        self._room = threading.Semaphore(MAX_QUEUED)
        self._waiting = deque()
        self._is_running = False
        # The ids of the latest execution that has begun, and of that which is to be interrupted.
        self._begun: str | None = None
        self._interrupted: str | None = None
        self._can_run = threading.Event()
        self._is_over = False
        self._connected = []
        self._kernel: Any = None
        session.send = self.sender.send

    def serve(self, kernel):
        """Starts to accept the client; its requests run in the current event loop."""
        self._kernel = kernel
        self._loop: Any = asyncio.get_event_loop()
        self._context = contextvars.copy_context()
        for kind in ("create", "delete", "list"):
            kernel.control_handlers[f"{kind}_subshell_request"] = getattr(self, f"_{kind}_subshell")
        kernel.shell_handlers[REQUEST] = Values(kernel, self.sender).run
        kernel.control_thread = threading.Thread(target=self._read_control, name=CONTROL_THREAD_NAME, daemon=True)
        kernel.control_thread.start()
        self._loop.call_soon(self._can_run.set)

    def _read_control(self):
        self.sender.stay_beside()
        # A client that is answered can rely on a kernel that is set up.
        self._can_run.wait()
        # Threads inherit the signal mask, by which only the main thread receives interrupts.
        shell, control = self._connected = self._acceptor.accept()
        for connected in self._connected:
            connected.on_lost = self._lose
        self.sender.connect(shell, control)
        threading.Thread(target=self._read, args=(shell, self._take), name="Shell channel", daemon=True).start()
        self._read(control, self._take_beside)

    def _read(self, connected, take):
        try:
            for data in connected.messages():
                try:
                    channel, message = decoded(data)
                except (ValueError, KeyError, TypeError) as error:
                    self._kernel.log.error("Invalid message: %s", error)
                    continue
                take(channel, message)
        finally:
            self._end()

    def _end(self):
        """Ends the kernel after its client: interrupts the code and stops the event loop, so that exit handlers run."""
        if self._is_over:
            return
        self._is_over = True
        for connected in self._connected:
            connected.close()
        self._kernel.shell.exit_now = True
        self._inputs.put(None)
        self._kernel.io_loop.add_callback(self._kernel.io_loop.stop)
        if self._is_running:
            self._kernel._send_interrupt_children()

    def _lose(self):
        """Ends the kernel if its code has broken what sends messages: the client would wait for them."""
        # The code may have closed what wakes the event loop, too.
        threading.Timer(LOST_TIMEOUT, os._exit, (1,)).start()
        self._end()

    def _take(self, channel, message):
        self._room.acquire()
        self._waiting.append(message)
        self._loop.call_soon_threadsafe(self._run_next, context=self._context)

    def _run_next(self):
        if not self._waiting:
            return
        if self._is_running:
            # A cell that is awaiting may wait for messages of widgets.
            if self._waiting[0]["msg_type"] in COMMS:
                self._begin(self._run_beside(self._next()))
            return
        self._is_running = True
        self._begin(self._run_in_turn(self._next()))

    def _next(self):
        self._room.release()
        return self._waiting.popleft()

    def _begin(self, coroutine):
        """Runs a coroutine without a task: one that the code found among its own it could cancel, or await for ever."""
        try:
            awaited = coroutine.send(None)
        except StopIteration:
            return
        resume = functools.partial(self._begin, coroutine)
        if awaited is None:
            self._loop.call_soon(resume, context=self._context)
        else:
            # As a task does it: the future was not asked for its result.
            awaited._asyncio_future_blocking = False
            awaited.add_done_callback(lambda _: resume(), context=self._context)

    async def _run_in_turn(self, message):
        try:
            await self.run(message)
        except Exception:
            self._lose()
            raise
        finally:
            self._is_running = False
            if self._waiting:
                self._loop.call_soon(self._run_next, context=self._context)

    async def _run_beside(self, message):
        shell_parent, ident = self._kernel.get_parent("shell"), []
        try:
            await self.run(message, is_beside=True)
        finally:
            self._kernel.set_parent(ident, shell_parent, channel="shell")

    async def run(self, message, is_beside=False):
        """Runs a request to a shell, as `dispatch_shell` of ipykernel does."""
        kernel = self._kernel
        kernel.set_parent([], message, channel="shell")
        if not is_beside:
            kernel._publish_status("busy", "shell")
        handler = kernel.shell_handlers.get(message["msg_type"])
        is_main = threading.current_thread() is self.subshells.parent_thread
        # Only the main thread can set signal handlers.
        is_hooked = is_main and not is_beside
        if handler is None:
            kernel.log.warning("Unknown message type: %r", message["msg_type"])
        else:
            if is_hooked:
                kernel.pre_handler_hook()
                # The other way round than in `_interrupt`: at least one of the two threads knows of both.
                # Clients name no other requests: an interrupt of one has the id of the execution before it.
                if message["msg_type"] in EXECUTIONS:
                    self._begun = message["msg_id"]
                    Interrupt.came = Interrupt.came or self._interrupted == self._begun
            try:
                result = handler(self._answer, [], message)
                if inspect.isawaitable(result):
                    await result
            except Exception:
                kernel.log.error("Exception in message handler:", exc_info=True)
            except (KeyboardInterrupt, asyncio.CancelledError) as error:
                # Code may cancel the task of a cell before it begins.
                kernel.log.error("%s caught in kernel.", type(error).__name__)
            finally:
                if is_hooked:
                    kernel.post_handler_hook()
        if is_main and message["msg_type"] != REQUEST:
            for stream in (sys.stdout, sys.stderr):
                if stream is not None:
                    stream.flush()
        if not is_beside:
            kernel._publish_status("idle", "shell")

    def _take_beside(self, channel, message):
        if channel == "stdin":
            self._inputs.put(message)
        elif channel == "shell":
            waiting = self.subshells.waiting_of(message["header"].get("subshell_id"))
            if waiting is None:
                self._refuse(message)
            else:
                waiting.put(message)
        elif channel == "control":
            self._control(message)

    def _refuse(self, message):
        """Replies to a request to an unknown subshell."""
        name, kernel = message["header"].get("subshell_id"), self._kernel
        error = {"status": "error", "ename": "UnknownSubshellError", "evalue": f"Unknown subshell_id {name!r}"}
        kind = message["msg_type"].rsplit("_", 1)[0] + "_reply"
        kernel._publish_status("busy", "shell", parent=message)
        self.sender.send(self._answer, kind, {**error, "traceback": []}, message)
        kernel._publish_status("idle", "shell", parent=message)

    def _control(self, message):
        """Runs a request of the control channel in this thread: the main thread may wait for the client to read."""
        kernel, kind = self._kernel, message["msg_type"]
        kernel.set_parent([], message, channel="control")
        handler = kernel.control_handlers.get(kind)
        if kind == "interrupt_request":
            self._interrupt(message)
            handler = None
        kernel._publish_status("busy", "control")
        try:
            if handler is not None:
                drive(handler(self._control_answer, [], message))
        except Exception:
            kernel.log.error("Exception in control handler:", exc_info=True)
        kernel._publish_status("idle", "control")

    def _interrupt(self, message):
        """Interrupts a request, or keeps the interrupt until the request begins."""
        self._interrupted = message["content"].get("msg_id")
        if self._interrupted in (None, self._begun):
            drive(self._kernel.interrupt_request(self._control_answer, [], message))
        else:
            self.sender.send(self._control_answer, "interrupt_reply", {"status": "ok"}, message)

    async def _create_subshell(self, channel, ident, parent):
        reply = {"status": "ok", "subshell_id": self.subshells.create(self)}
        self.sender.send(channel, "create_subshell_reply", reply, parent)

    async def _delete_subshell(self, channel, ident, parent):
        name = parent["content"].get("subshell_id")
        reply = {"status": "ok"}
        if self.subshells.waiting_of(name) is None:
            reply = {"status": "error", "evalue": f"Unknown subshell_id {name!r}"}
        else:
            self.subshells.delete(name)
        self.sender.send(channel, "delete_subshell_reply", reply, parent)

    async def _list_subshell(self, channel, ident, parent):
        reply = {"status": "ok", "subshell_id": self.subshells.list_subshell()}
        self.sender.send(channel, "list_subshell_reply", reply, parent)

    def input(self, prompt, parent, password):
        """Returns the reply of the client to `input()`."""
        header = self._session.msg_header("input_request")
        content = {"prompt": prompt, "password": password}
        self.sender.send(self.stdin, "input_request", content, parent, header=header)
        try:
            reply = self._reply_to(header["msg_id"])
        except KeyboardInterrupt:
            raise KeyboardInterrupt("Interrupted by user") from None
        finally:
            # A client that reads this later does not answer.
            self.sender.send(self.stdin, ANSWERED, {}, parent)
        value = "\x04" if reply is None else reply["content"].get("value", "")
        if value == "\x04":
            raise EOFError
        return value

    def _reply_to(self, request):
        """Returns the reply to a request for input, and drops those to earlier ones; None if the client has ended."""
        while not self._is_over:
            reply = self._inputs.get()
            if reply is None or reply["parent_header"].get("msg_id", request) == request:
                return reply
        return None
