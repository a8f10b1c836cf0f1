"""Serves programs on other machines: each WebSocket of a kernel's client is joined to one of the kernel.

`GET /api/kernels/ID/shell` and `/control` take a handshake, which the kernel answers. From then on bytes pass in both
directions as they are. Neither side is read while the other does not take what was read before.
"""

import asyncio
import re
import socket
from typing import Any

from kernel_gateway.mixins import JSONErrorsMixin, TokenAuthorizationMixin
from tornado.iostream import IOStream, StreamClosedError
from tornado.web import RequestHandler

from effect_jupyter.gateway.limits import Told

# The header of answers by which programs know the gateway, with the version of what it offers beyond Jupyter's API.
HEADER = {"X-Effect-Jupyter": "1"}
NAMES = ("shell", "control")
PIECE = 256 * 1024
# Seconds for a client to connect to its new kernel, and to read the end; and for a kernel to end after its client.
FIRST, LINGER, END = 60.0, 5.0, 2.0
CUT = "The connection to its client was cut"
# Seconds without traffic before the system probes a client, between probes, and probes without an answer.
PROBES = (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3))
# The argument with the maximum bytes of a message to the client.
MAX_SIZE = "max_message_size"
KEY, BOUND = re.compile(r"[A-Za-z0-9+/]{22}=="), re.compile(r"\d{1,15}", re.ASCII)


class Join:
    """A connection of a client, the kernel's, and the bytes that were passed on."""

    def __init__(self, client: IOStream, kernel: socket.socket):
        self._client: Any = client
        self._kernel = kernel
        self.received = self.sent = 0
        self.is_answered = False

    async def run(self, on_end):
        """Passes bytes until one side has ended; calls `on_end` with whether that is the client."""
        up, down = asyncio.ensure_future(self._up()), asyncio.ensure_future(self._down())
        try:
            await asyncio.wait({up, down}, return_when=asyncio.FIRST_COMPLETED)
            is_client = up.done() or self._client.closed()
            on_end(is_client)
            if not is_client:
                await self._end_client()
                await asyncio.wait({up}, timeout=LINGER)
        finally:
            # Ends what waits for it; only the kernel's socket must not be closed while it is waited for.
            self._client.close()
            for direction in (up, down):
                direction.cancel()
            await asyncio.wait({up, down})
            self._kernel.close()

    async def _end_client(self):
        """Ends the connection after all that was written: closing it would discard that if the client has written."""
        try:
            if not self.is_answered:
                # It is of another ipykernel than is supported, or has ended early.
                await self._client.write(b"HTTP/1.1 409 Conflict\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
            self._client.socket.shutdown(socket.SHUT_WR)
        except (StreamClosedError, OSError):
            pass  # the client has ended, too

    async def _up(self):
        """Ends with the client."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                data = await self._client.read_bytes(PIECE, partial=True)
                self.received += len(data)
                try:
                    await loop.sock_sendall(self._kernel, data)
                except OSError:
                    pass  # the kernel has ended, and may have more to read
        except StreamClosedError:
            pass

    async def _down(self):
        """Ends with the kernel, or with a client that does not take its bytes."""
        loop = asyncio.get_running_loop()
        try:
            while data := await loop.sock_recv(self._kernel, PIECE):
                self.is_answered = True
                await self._client.write(data)
                self.sent += len(data)
        except (StreamClosedError, OSError):
            pass


class Joins:
    """The connections of one kernel."""

    def __init__(self):
        self._open: dict[str, Join] = {}
        # The side that ended first, "client" or "kernel".
        self.ended: str | None = None

    def model(self):
        counts = {name: {"received": join.received, "sent": join.sent} for name, join in self._open.items()}
        return {**counts, "ended": self.ended}

    def has(self, name):
        return name in self._open

    def is_complete(self):
        return all(name in self._open and self._open[name].is_answered for name in NAMES)

    async def run(self, name, client, connected, on_cut):
        """Joins two connections; calls `on_cut` if the client has both and is the first to end."""
        join = self._open[name] = Join(client, connected)

        def on_end(is_client):
            if not self.is_complete():
                del self._open[name]
            elif self.ended is None:
                self.ended = "client" if is_client else "kernel"
                if is_client:
                    on_cut()

        await join.run(on_end)


def expect(kernels, kernel_id):
    """Deletes a new kernel whose client does not connect to it."""

    def check():
        kernel = kernels.served(kernel_id)
        if kernel is not None and not kernel.joins.is_complete():
            delete(kernels, kernel_id)

    asyncio.get_running_loop().call_later(FIRST, check)


def delete(kernels, kernel_id):
    """Deletes a kernel without a client, unless it has ended or is being deleted."""
    kernel = kernels.served(kernel_id)
    if kernel is not None and not kernel.shutting_down:
        kernels.keep_last_words(kernel_id, CUT)
        deleting = asyncio.ensure_future(kernels.shutdown_kernel(kernel_id))
        deleting.add_done_callback(lambda done: done.cancelled() or done.exception())


def handshake_of(request, name, token):
    """Returns the handshake for the kernel. Raises an error if that of the client is none."""
    key = request.headers.get("Sec-WebSocket-Key", "")
    bound = request.arguments.get(MAX_SIZE, [b""])[-1].decode("latin-1")
    if not KEY.fullmatch(key) or not BOUND.fullmatch(bound):
        raise Told(400, f'Open it as a WebSocket, with "{MAX_SIZE}"')
    fields = {
        "Host": "localhost",
        "Connection": "Upgrade",
        "Upgrade": request.headers.get("Upgrade", "").lower()[:16],
        "Authorization": f"token {token}",
        "Sec-WebSocket-Version": request.headers.get("Sec-WebSocket-Version", "")[:16],
        "Sec-WebSocket-Key": key,
        "Sec-WebSocket-Protocol": request.headers.get("Sec-WebSocket-Protocol", "")[:128],
        "X-Max-Message-Size": bound,
    }
    lines = [f"GET /{name} HTTP/1.1", *(f"{field}: {value}" for field, value in fields.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def probe(connected):
    """Lets the system find out that a client is gone which does not say so."""
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in PROBES:
        if hasattr(socket, option):
            connected.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


class JoinHandler(TokenAuthorizationMixin, JSONErrorsMixin, RequestHandler):
    async def get(self, kernel_id, name):
        kernels: Any = self.settings["kernel_manager"]
        kernels.get_kernel(kernel_id)
        kernel = kernels.served(kernel_id)
        if kernel is None or kernel.joins.has(name):
            raise Told(409, "The kernel has a client, or no connection of its own")
        handshake = handshake_of(self.request, name, kernel.session.key.decode())
        connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connected.setblocking(False)
        try:
            connected.connect(kernel.socket_path)
            connected.sendall(handshake)
        except OSError:
            connected.close()
            raise Told(409, "The kernel has a client, or does not serve any") from None
        client: Any = self.detach()
        client.set_nodelay(True)
        probe(client.socket)
        loop = asyncio.get_running_loop()
        await kernel.joins.run(name, client, connected, lambda: loop.call_later(END, delete, kernels, kernel_id))


HANDLERS = [(rf"/api/kernels/([\w-]+)/({'|'.join(NAMES)})", JoinHandler)]
