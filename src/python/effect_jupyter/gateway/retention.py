"""The client of kernels that outlive the programs that use them.

The gateway is the one client of such a kernel. It keeps the last frames of the kernel's output, by their numbers, and
passes them to the program that is attached. Messages are not parsed. While a program is attached, the kernel is read only
as fast as the program reads; otherwise as fast as it writes, and the oldest frames are dropped. What a kernel put out
before it died stays.
"""

import asyncio
import base64
import json
import os
from collections.abc import Callable
from typing import Any

from tornado.web import HTTPError
from tornado.websocket import WebSocketClosedError

from effect_jupyter.kernel.connection import PROTOCOL
from effect_jupyter.kernel.websocket import BINARY, BOUND, head

# The code of a connection that ends because another program is attached.
TAKEN = 4001
# Maximum bytes that a program may be behind before the kernel is not read, and of one write to it.
WINDOW, BATCH = 1024 * 1024, 256 * 1024
# Memory of a frame besides its bytes.
OVERHEAD = 150
# The start of the content of a status message, which ends its frame. Quotes of the user's text are escaped in JSON.
STATUS = b'{"execution_state": "'


class Log:
    """The last frames of a kernel. The first one of all has the number 1."""

    def __init__(self, bound):
        self._bound = bound
        self._frames: dict[int, bytes] = {}
        self.size = 0
        # The numbers of the oldest frame that is kept, and of the next frame to come.
        self.first = self.next = 1

    def append(self, frame, needed):
        """Adds a frame and drops the oldest ones beyond the bound, except those from the number `needed` on."""
        self._frames[self.next] = frame
        self.next += 1
        self.size += len(frame) + OVERHEAD
        self.drop(self.size - self._bound, needed)

    def drop(self, excess, needed):
        """Drops the oldest frames of so many bytes, except those from the number `needed` on."""
        rest = self.size - excess
        while self.size > rest and self.first < min(needed, self.next):
            self.size -= len(self._frames.pop(self.first)) + OVERHEAD
            self.first += 1

    def __getitem__(self, number):
        return self._frames[number]


class Reader:
    """The position of a WebSocket of a program in the log."""

    def __init__(self, number, end=None):
        self.next = number
        # The number after the last frame; None to go on with those that come.
        self.end = end
        # Bytes of the frames that have come and are not sent yet.
        self.behind = 0


class Retention:
    """The connection of the gateway to a kernel, and the programs that are attached one after another."""

    def __init__(self, bound, on_status: Callable[[str], None]):
        self.log = Log(bound)
        self.is_over = False
        # True if programs have references to code, whose output they may take after the end of the kernel.
        self.is_referenced = False
        self._on_status = on_status
        self._holder: str | None = None
        self._former: set[str] = set()
        self._sockets: dict[str, Any] = {}
        self._readers: dict[Any, Reader] = {}
        self._connections: dict[str, Connection] = {}
        self._changed = asyncio.Event()
        self._reading: asyncio.Future | None = None
        self._opening: Any = None

    def connect(self, path, token, largest):
        """Connects to the kernel as soon as it accepts its client."""
        self._opening = asyncio.ensure_future(self._open(path, token, largest))

    async def _open(self, path, token, largest):
        try:
            for name in ("shell", "control"):
                self._connections[name] = await connect(path, name, token, largest)
        except (OSError, EOFError, asyncio.LimitOverrunError):
            return False
        shell, control = (self._connections[name].reader for name in ("shell", "control"))
        reading = asyncio.gather(self._read_shell(shell), self._read_control(control))
        reading.add_done_callback(self._on_end)
        self._reading = reading
        # It sends no state before it is asked for something.
        self._on_status("idle")
        return True

    async def opened(self):
        """Tells whether the kernel has accepted the gateway, when that is known."""
        await asyncio.wait([self._opening])
        return not self._opening.cancelled() and self._opening.result()

    def close(self):
        """Ends the kernel, which ends after its client."""
        self._opening.cancel()
        self._disconnect()

    def _disconnect(self):
        for connection in self._connections.values():
            connection.close()

    def _on_end(self, reading):
        if not reading.cancelled():
            reading.exception()
        self.is_over = True
        # The manager of the kernel, which has descriptors.
        self._on_status = lambda _: None
        self._disconnect()
        self._notify()
        for name, socket in self._sockets.items():
            # The shell is closed after its last frame.
            if name != "shell":
                socket.close()

    def _notify(self):
        self._changed.set()
        self._changed = asyncio.Event()

    async def _read_shell(self, reader):
        async for frame in frames(reader):
            for each in self._readers.values():
                if each.end is None:
                    each.behind += len(frame)
            self.log.append(frame, self._needed())
            self._notify()
            _, found, state = frame[-len(STATUS) - 20 :].rpartition(STATUS)
            if found:
                self._on_status(state.partition(b'"')[0].decode())
            while any(each.end is not None or each.behind > WINDOW for each in self._readers.values()):
                await self._changed.wait()

    def _needed(self):
        """Returns the number of the first frame that a program is yet to be sent."""
        return min((each.next for each in self._readers.values()), default=self.log.next + 1)

    def drop(self, excess):
        """Drops the oldest frames of so many bytes, except those that a program is yet to be sent."""
        self.log.drop(excess, self._needed())

    async def _read_control(self, reader):
        async for frame in frames(reader):
            socket = self._sockets.get("control")
            if socket is not None:
                try:
                    # A program has few requests to this channel, and its other frames are not to wait for it.
                    socket.write_message(frame, binary=True)
                except WebSocketClosedError:
                    pass

    def take(self, holder):
        """Makes a program the one that is attached; the one before it is detached for good."""
        if holder == self._holder:
            return
        self.check(holder, True)
        if self._holder is not None:
            self._former.add(self._holder)
        self._holder = holder
        self._readers.clear()
        for socket in self._sockets.values():
            refuse(socket)
        self._sockets.clear()
        self._notify()

    def check(self, holder, may_be_new=False):
        """Refuses a program that is not attached."""
        if holder in self._former or not may_be_new and not self.is_held_by(holder):
            raise HTTPError(409, "Another program is attached to the kernel")

    def is_held_by(self, holder):
        """Tells whether a program is the one that is attached."""
        return holder == self._holder

    async def start(self, frame):
        """Sends a request to the main shell. Returns the number of frames before it."""
        if self.is_over:
            raise HTTPError(404, "The kernel has ended")
        position = self.log.next - 1
        self.is_referenced = True
        # The kernel has code to run as soon as its program is answered, which may end then.
        self._on_status("busy")
        await self.send("shell", frame)
        return position

    async def send(self, name, frame):
        """Sends a frame to the kernel, unless it has ended."""
        if self.is_over:
            return
        writer = self._connections[name].writer
        start = bytearray(head(len(frame)))
        start[1] |= 0x80
        writer.write(start + b"\0\0\0\0")
        writer.write(frame)
        try:
            await writer.drain()
        except OSError:
            pass  # the kernel has ended, which the program is told

    def join(self, name, socket):
        """Adds a WebSocket of the program that is attached. False if that is another one by now."""
        if not self.is_held_by(socket.holder):
            return False
        self._sockets[name] = socket
        if self.is_over and name != "shell":
            socket.close()
        return True

    def leave(self, name, socket):
        """Removes a WebSocket that was closed."""
        self._readers.pop(socket, None)
        self._notify()
        if self._sockets.get(name) is socket:
            del self._sockets[name]

    def connections(self):
        """Returns the number of WebSockets of programs."""
        return len(self._sockets)

    def knows(self, name, socket):
        """Tells whether the program of a WebSocket is still attached."""
        return self._sockets.get(name) is socket

    async def replay(self, socket, start, end=None):
        """Sends the frames after the number `start` up to `end`, or the last one, as far as they are kept.

        The kernel waits meanwhile.
        """
        self.is_referenced = True
        until = self.log.next if end is None else min(end + 1, self.log.next)
        first = min(max(self.log.first, start + 1), until)
        opening = {"first": first} if end is not None else {"first": first, "last": until - 1}
        await self._pass_on(socket, Reader(first, until), opening)

    async def follow(self, socket):
        """Sends the frames that come from now on."""
        await self._pass_on(socket, Reader(self.log.next), {"position": self.log.next - 1})

    async def _pass_on(self, socket, reader, opening):
        self._readers[socket] = reader
        try:
            socket.write_message(json.dumps(opening))
            while self._readers.get(socket) is reader and reader.next != reader.end:
                if reader.next == self.log.next:
                    if self.is_over:
                        break
                    await self._changed.wait()
                    continue
                size, written = 0, None
                until = self.log.next if reader.end is None else reader.end
                while reader.next < until and size < BATCH:
                    frame = self.log[reader.next]
                    written = socket.write_message(frame, binary=True)
                    reader.next += 1
                    size += len(frame)
                if written is not None:
                    await written
                reader.behind -= size
                self._notify()
        except WebSocketClosedError:
            return
        if self._readers.get(socket) is reader:
            del self._readers[socket]
            self._notify()
            socket.close()
        else:
            refuse(socket)


class Ended:
    """The output of kernels that died, for programs that have references to it.

    All of it together has the bound of one kernel; beyond it, the oldest frames of the kernel that died first are dropped.
    """

    def __init__(self, bound, most):
        self._bound = bound
        self._most = most
        self._retentions: dict[str, Retention] = {}

    def add(self, kernel_id, retention):
        """Keeps the output of a kernel; with too many, that of the first one is dropped."""
        self._retentions[kernel_id] = retention
        if len(self._retentions) > self._most:
            del self._retentions[next(iter(self._retentions))]
        self.trim()

    def get(self, kernel_id) -> "Retention | None":
        return self._retentions.get(kernel_id)

    def remove(self, kernel_id):
        """Drops the output of a kernel. False if there is none."""
        return self._retentions.pop(kernel_id, None) is not None

    def trim(self):
        """Drops frames beyond the bound. Those that a program is yet to be sent stay until then."""
        for retention in self._retentions.values():
            size = sum(each.log.size for each in self._retentions.values())
            retention.drop(size - self._bound)


def refuse(socket):
    """Closes the WebSocket of a program that is not attached."""
    socket.close(TAKEN, "Another program is attached to the kernel")


class Reading(asyncio.StreamReaderProtocol):
    """Has its reader give everything that came before the connection failed."""

    def connection_lost(self, exc):
        super().connection_lost(None)


class Writing(asyncio.StreamReaderProtocol):
    """Leaves the reading to another transport, which goes on when a write fails."""

    def connection_made(self, transport):
        super().connection_made(transport)
        transport.pause_reading()  # pyright: ignore[reportAttributeAccessIssue]


class Connection:
    """A WebSocket to a kernel. What a kernel sent before it died is read, although nothing can be written any more."""

    def __init__(self, reader, writer, transports):
        self.reader: asyncio.StreamReader = reader
        self.writer: asyncio.StreamWriter = writer
        self._transports = transports

    def close(self):
        for transport in self._transports:
            transport.close()


async def connect(path, name, token, largest):
    """Opens a WebSocket to a kernel, which answers when it is ready."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=BATCH)
    reading, _ = await loop.create_unix_connection(lambda: Reading(reader), path)
    try:
        copy = reading.get_extra_info("socket").dup()
        writing, protocol = await loop.create_unix_connection(lambda: Writing(asyncio.StreamReader()), sock=copy)
    except BaseException:
        reading.close()
        raise
    connection = Connection(reader, asyncio.StreamWriter(writing, protocol, None, loop), (writing, reading))
    key = base64.b64encode(os.urandom(16)).decode()
    connection.writer.write(
        (
            f"GET /{name} HTTP/1.1\r\nHost: localhost\r\nAuthorization: token {token}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n"
            f"Sec-WebSocket-Protocol: {PROTOCOL}\r\n{BOUND}: {largest}\r\n\r\n"
        ).encode()
    )
    try:
        answer = await reader.readuntil(b"\r\n\r\n")
        if answer.split(b" ")[1] != b"101":
            raise ConnectionError("The kernel refused its client")
    except BaseException:
        connection.close()
        raise
    return connection


async def frames(reader):
    """Yields the payloads of the kernel's frames until the connection ends."""
    while True:
        try:
            first, second = await reader.readexactly(2)
            size = second & 0x7F
            if size > 125:
                size = int.from_bytes(await reader.readexactly(2 if size == 126 else 8), "big")
            payload = await reader.readexactly(size)
        except (EOFError, OSError):
            return
        if first & 0x0F == BINARY:
            yield payload
