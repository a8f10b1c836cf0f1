"""What a kernel does with the requests of the client at its own connection, and how it answers.

In place of ipykernel's sockets, threads and event loops: a request of the main shell is run by the event loop as soon as
that hears of it, without a task as long as nothing is awaited; one of the control channel by the thread that reads it;
one of a subshell by the thread of that.
"""

import asyncio
import contextvars
import functools
import inspect
import json
import os
import queue
import struct
import sys
import threading
import traceback
import types
import uuid
from collections import deque
from datetime import datetime, timezone
from heapq import heappop, heappush
from itertools import count
from time import monotonic
from typing import Any

from ipykernel.iostream import IOPubThread
from ipykernel.thread import CONTROL_THREAD_NAME
from jupyter_client.session import DELIM

from effect_jupyter.kernel.connection import Door
from effect_jupyter.kernel.interrupts import Interrupt
from effect_jupyter.kernel.websocket import head

# Requests that wait for their turn before no more of them are read.
MOST_WAITING = 64
# The message in place of one that is larger than the client takes.
TOO_LARGE = "effect_jupyter_too_large"
COMMS = ("comm_open", "comm_msg", "comm_close")


class Channel:
    """What takes the place of a socket: messages that are sent there name this channel."""

    def __init__(self, name, sender):
        self.channel = name
        self.sender = sender

    def send_multipart(self, parts, *_, **__):
        """Sends a message that was made for ZeroMQ."""
        self.sender.send_parts(self.channel, parts[parts.index(DELIM) + 2 :])


class Publisher(Channel, IOPubThread):
    """The thread that sends what was written, in time. ipykernel's own has an event loop, and sockets to wake it."""

    def __init__(self, sender):
        super().__init__("iopub", sender)
        self._tasks = queue.SimpleQueue()
        self._timers = []
        self._numbers = count()
        self.io_loop = self.background_socket = self
        self.thread = threading.Thread(target=self._run, name="IOPub", daemon=True)

    def start(self):
        self.thread.start()

    def schedule(self, task):
        if self.thread.is_alive():
            self._tasks.put(task)
        else:
            task()

    def call_later(self, delay, task, *args):
        """For this thread only."""
        heappush(self._timers, (monotonic() + delay, next(self._numbers), functools.partial(task, *args)))

    def _run(self):
        while True:
            pause = max(0.0, self._timers[0][0] - monotonic()) if self._timers else None
            try:
                task = self._tasks.get(timeout=pause)
            except queue.Empty:
                task = heappop(self._timers)[2]
            try:
                task()
            except Exception:
                traceback.print_exc(file=sys.__stderr__)

    def stop(self):
        pass  # it ends with the process

    def close(self):
        pass


class Sender:
    """Sends messages to the client in place of `Session.send`, unsigned: nobody else is at the connection."""

    def __init__(self, session, flush):
        self._session = session
        self._flush = flush
        self._send_elsewhere = session.send
        self._pid = os.getpid()
        self._start = f'{{"msg_id":"{session.session}_{self._pid}_'.encode()
        tail = {"username": session.username, "session": session.session}
        self._tail = json.dumps(tail, separators=(",", ":"))[1:-1].encode()
        self._version = b'","version":"' + session.msg_header("none")["version"].encode() + b'"}'
        self._parent: Any = (None, b"{}")
        self._beside = threading.local()
        self._shell: Any = None
        self._control: Any = None

    def connect(self, shell, control):
        self._shell, self._control = shell, control

    def stay_beside(self):
        """What this thread sends does not wait behind output."""
        self._beside.is_so = True

    def send(
        self,
        stream,
        msg_or_type,
        content=None,
        parent=None,
        ident=None,
        buffers=None,
        track=False,
        header=None,
        metadata=None,
    ):
        name = getattr(stream, "channel", None)
        if name is None:
            return self._send_elsewhere(stream, msg_or_type, content, parent, ident, buffers, track, header, metadata)
        if os.getpid() != self._pid:
            return None
        if isinstance(msg_or_type, dict):
            message: Any = msg_or_type
            kind, buffers = message["header"]["msg_type"], buffers or message.get("buffers")
            head_of, parent = self._session.pack(message["header"]), message["parent_header"]
            content, metadata = message["content"], message["metadata"]
        else:
            kind = msg_or_type
            head_of = self._session.pack(header) if header is not None else self._header(kind)
            message = {"msg_type": kind, "content": {} if content is None else content}
            content = message["content"]
        state = content.get("execution_state") if kind == "status" and isinstance(content, dict) else None
        is_beside = getattr(self._beside, "is_so", False)
        connected = self._control if is_beside else self._shell
        if connected is None:
            return message
        if name == "iopub" and kind not in ("stream", "status", "execute_input") and not is_beside:
            self._flush()
        packed = content if isinstance(content, bytes) else self._session.pack(content)
        parts = [head_of, self._packed_parent(parent), self._session.pack(metadata) if metadata else b"{}", packed]
        frame = self._bounded(name, parts if not buffers else [*parts, *map(plain, buffers)], connected.bound)
        # What comes next is behind it at once: one write for both.
        if state == "busy" or name == "shell" and kind.endswith("_reply"):
            connected.put(frame)
        else:
            connected.write(frame)
        return message

    def send_parts(self, name, parts):
        """Sends a message of which all parts are bytes."""
        if self._shell is not None and os.getpid() == self._pid:
            self._flush()
            self._shell.write(self._bounded(name, [plain(part) for part in parts], self._shell.bound))

    def _bounded(self, name, parts, bound):
        """The frame of a message, or of one that says for the same request that it is too large for the client."""
        size = 8 * (3 + len(parts)) + len(name) + sum(map(len, parts))
        if size > bound:
            parts = [self._header(TOO_LARGE), parts[1], b"{}", b'{"bytes":%d}' % size]
        return encoded(name, parts)

    def _header(self, kind):
        number = self._session.message_count
        self._session.message_count = number + 1
        date = datetime.now(timezone.utc).isoformat()[:-6]
        return b'%s%d","msg_type":"%s",%s,"date":"%sZ%s' % (
            self._start,
            number,
            kind.encode(),
            self._tail,
            date.encode(),
            self._version,
        )

    def _packed_parent(self, parent):
        """The header of the parent, which is the same for most messages in a row."""
        header = parent.get("header", parent) if parent else None
        if not header:
            return b"{}"
        known, packed = self._parent
        if known is not header:
            packed = self._session.pack(header)
            self._parent = (header, packed)
        return packed


def plain(buffer):
    view = memoryview(buffer)
    if not view.contiguous:
        raise ValueError(f"Buffer {buffer!r} is not contiguous")
    return view.cast("B")


def encoded(channel, parts):
    """A message of the protocol v1 as a frame, in pieces."""
    name = channel.encode()
    offsets = [8 * (3 + len(parts)), 0]
    offsets[1] = offsets[0] + len(name)
    for part in parts:
        offsets.append(offsets[-1] + len(part))
    table = struct.pack(f"<{1 + len(offsets)}Q", len(offsets), *offsets)
    if offsets[-1] < 65536:
        return [b"".join((head(offsets[-1]), table, name, *parts))]
    return [head(offsets[-1]) + table + name, *parts]


def decoded(data):
    """The channel and the message in a message of the protocol v1; ValueError if there is none."""
    if len(data) < 8:
        raise ValueError("It is too short")
    (number,) = struct.unpack_from("<Q", data)
    if not 6 <= number <= len(data) // 8 - 1:
        raise ValueError(f"{number} is no number of offsets for {len(data)} bytes")
    offsets = struct.unpack_from(f"<{number}Q", data, 8)
    if list(offsets) != sorted(offsets) or offsets[0] < 8 * (number + 1) or offsets[-1] != len(data):
        raise ValueError("Its offsets are not in order")
    view = memoryview(data)
    parts = [view[start:end] for start, end in zip(offsets, offsets[1:])]
    header, parent, metadata, content = (json.loads(bytes(part)) for part in parts[1:5])
    if not all(isinstance(part, dict) for part in (header, parent, metadata, content)):
        raise ValueError("Its parts are no objects")
    return bytes(parts[0]).decode(), {
        "header": header,
        "msg_id": header["msg_id"],
        "msg_type": header["msg_type"],
        "parent_header": parent,
        "metadata": metadata,
        "content": content,
        "buffers": parts[5:],
    }


@types.coroutine
def resumed(coroutine, awaited):
    """The rest of a coroutine that has begun without a task, and awaits that now."""
    while True:
        try:
            value = yield awaited
        except BaseException as error:
            step = functools.partial(coroutine.throw, error)
        else:
            step = functools.partial(coroutine.send, value)
        try:
            awaited = step()
        except StopIteration:
            return


class Subshell(threading.Thread):
    """A thread that runs requests beside the main shell."""

    def __init__(self, name, requests):
        super().__init__(name=f"subshell-{name}", daemon=True)
        self._requests = requests
        self.waiting = queue.SimpleQueue()

    def run(self):
        self._requests.sender.stay_beside()
        while (message := self.waiting.get()) is not None:
            try:
                self._run(message)
            except Exception:
                traceback.print_exc(file=sys.__stderr__)

    def _run(self, message):
        coroutine = self._requests.run(message)
        # Only cells can await something; a loop takes descriptors, of which there may be none now.
        if message["msg_type"] != "execute_request":
            return drive(coroutine)
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        try:
            loop.run_until_complete(coroutine)
        finally:
            loop.close()


class Subshells:
    """The subshells of a kernel, in place of ipykernel's thread for them and its manager."""

    def __init__(self):
        self.manager = self
        self.parent_thread = threading.main_thread()
        self._threads = {}

    def create(self, requests):
        name = str(uuid.uuid4())
        self._threads[name] = Subshell(name, requests)
        self._threads[name].start()
        return name

    def delete(self, name):
        self._threads.pop(name).waiting.put(None)

    def waiting_of(self, name):
        """Where requests of a subshell go; None if there is none of that name."""
        thread = self._threads.get(name)
        return None if thread is None else thread.waiting

    def list_subshell(self):
        return list(self._threads)

    def subshell_id_from_thread_id(self, ident):
        if ident == self.parent_thread.ident:
            return None
        for name, thread in [*self._threads.items()]:
            if thread.ident == ident:
                return name
        raise RuntimeError(f"Thread id {ident!r} does not correspond to a subshell of this kernel")


class Requests:
    """The requests of the client of one kernel."""

    def __init__(self, listener, session, flush):
        self.sender = Sender(session, flush)
        self.publisher = Publisher(self.sender)
        self.subshells = Subshells()
        self.stdin = Channel("stdin", self.sender)
        self._door = Door(listener, session.key)
        self._answer = Channel("shell", self.sender)
        self._control_answer = Channel("control", self.sender)
        self._inputs = queue.SimpleQueue()
        self._room = threading.Semaphore(MOST_WAITING)
        self._waiting = deque()
        self._is_running = False
        self._is_over = False
        self._connected = []
        self._kernel: Any = None
        session.send = self.sender.send

    def serve(self, kernel):
        """Serves the client from now on, in the event loop of the kernel."""
        self._kernel = kernel
        self._loop: Any = asyncio.get_event_loop()
        self._context = contextvars.copy_context()
        for kind in ("create", "delete", "list"):
            kernel.control_handlers[f"{kind}_subshell_request"] = getattr(self, f"_{kind}_subshell")
        kernel.control_thread = threading.Thread(target=self._read_control, name=CONTROL_THREAD_NAME, daemon=True)
        kernel.control_thread.start()

    def _read_control(self):
        self.sender.stay_beside()
        # Threads inherit from this one that interrupts are for the main thread.
        shell, control = self._connected = self._door.open()
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
        """The kernel ends with its client, after what runs was interrupted and what it has registered for its end."""
        if self._is_over:
            return
        self._is_over = True
        for connected in self._connected:
            connected.close()
        self._kernel.shell.exit_now = True
        if self._is_running:
            self._kernel._send_interrupt_children()
        self._inputs.put(None)
        self._kernel.io_loop.add_callback(self._kernel.io_loop.stop)

    def _take(self, channel, message):
        self._room.acquire()
        self._waiting.append(message)
        self._loop.call_soon_threadsafe(self._run_next, context=self._context)

    def _run_next(self):
        if not self._waiting:
            return
        if self._is_running:
            # A cell that awaits may wait for these.
            if self._waiting[0]["msg_type"] in COMMS:
                self._begin(self._run_beside(self._next()))
            return
        self._is_running = True
        self._begin(self._run_in_turn(self._next()))

    def _next(self):
        self._room.release()
        return self._waiting.popleft()

    def _begin(self, coroutine):
        """Runs it here until it awaits something, which needs a task."""
        try:
            awaited = coroutine.send(None)
        except StopIteration:
            return
        Interrupt.outer = self._loop.create_task(resumed(coroutine, awaited), context=self._context)

    async def _run_in_turn(self, message):
        try:
            await self.run(message)
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
        """Runs a request of a shell, as ipykernel's `dispatch_shell` does."""
        kernel = self._kernel
        kernel.set_parent([], message, channel="shell")
        if not is_beside:
            kernel._publish_status("busy", "shell")
        handler = kernel.shell_handlers.get(message["msg_type"])
        is_main = threading.current_thread() is self.subshells.parent_thread
        # Only the main thread has handlers of signals.
        is_hooked = is_main and not is_beside
        if handler is None:
            kernel.log.warning("Unknown message type: %r", message["msg_type"])
        else:
            if is_hooked:
                kernel.pre_handler_hook()
            try:
                result = handler(self._answer, [], message)
                if inspect.isawaitable(result):
                    await result
            except Exception:
                kernel.log.error("Exception in message handler:", exc_info=True)
            except KeyboardInterrupt:
                kernel.log.error("KeyboardInterrupt caught in kernel.")
            finally:
                if is_hooked:
                    kernel.post_handler_hook()
        if is_main:
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
        """There is no such subshell."""
        name, kernel = message["header"].get("subshell_id"), self._kernel
        error = {"status": "error", "ename": "UnknownSubshellError", "evalue": f"Unknown subshell_id {name!r}"}
        kind = message["msg_type"].rsplit("_", 1)[0] + "_reply"
        kernel._publish_status("busy", "shell", parent=message)
        self.sender.send(self._answer, kind, {**error, "traceback": []}, message)
        kernel._publish_status("idle", "shell", parent=message)

    def _control(self, message):
        """Handles a request of the control channel here and now: what runs may be blocked by what nobody reads."""
        kernel, kind = self._kernel, message["msg_type"]
        kernel.set_parent([], message, channel="control")
        handler = kernel.control_handlers.get(kind)
        if kind == "interrupt_request":
            result = kernel.interrupt_request(self._control_answer, [], message)
            drive(result)
            handler = None
        kernel._publish_status("busy", "control")
        try:
            if handler is not None:
                drive(handler(self._control_answer, [], message))
        except Exception:
            kernel.log.error("Exception in control handler:", exc_info=True)
        kernel._publish_status("idle", "control")

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
        """What the client enters for `input()`."""
        while not self._inputs.empty():
            self._inputs.get()
        content = {"prompt": prompt, "password": password}
        self.sender.send(self.stdin, "input_request", content, parent)
        try:
            reply = None if self._is_over else self._inputs.get()
        except KeyboardInterrupt:
            raise KeyboardInterrupt("Interrupted by user") from None
        value = "\x04" if reply is None else reply["content"].get("value", "")
        if value == "\x04":
            raise EOFError
        return value


def drive(coroutine):
    """Runs what awaits nothing, such as ipykernel's handlers of control requests."""
    if not inspect.iscoroutine(coroutine):
        return
    try:
        coroutine.send(None)
    except StopIteration:
        return
    coroutine.close()
    raise RuntimeError("It awaits something, and there is no event loop for that")
