"""The server side of a WebSocket (RFC 6455).

A request without the token has at most a few kilobytes. A frame that is not valid is refused by its header, before
memory is allocated for its payload. Standard library only.
"""

import base64
import errno
import hashlib
import hmac
import os
import socket
import struct
import threading
import time
from collections import deque
from typing import Any

LARGEST_REQUEST = 8192
# Maximum bytes of a message of the client, of one read from the socket, and of one that may read the next frames too.
LARGEST, PIECE, AHEAD = 1024 * 1024 * 1024, 1024 * 1024, 4096
# Maximum frames, parts and bytes of one write; the system accepts 1024 parts.
MAX_FRAMES, MAX_PARTS, MAX_BYTES = 16, 512, 256 * 1024
# The code may have given SIGPIPE, which Python ignores, its default action.
NO_SIGNAL = getattr(socket, "MSG_NOSIGNAL", 0)
# Errors of the system that are temporary.
SHORTAGES = (errno.ENOBUFS, errno.ENOMEM)
# Errors of a descriptor that was closed in this process, and which may be of another file by now.
CLOSED_HERE = (errno.EBADF, errno.ENOTSOCK)
# The header field of a request with the maximum bytes of a message to the client.
BOUND = "x-max-message-size"
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
VIOLATION, UNSUPPORTED, TOO_LARGE = 1002, 1003, 1009


class Refused(Exception):
    """Refuses a handshake with an HTTP status, or closes a connection with a code."""

    def __init__(self, code):
        super().__init__(code)
        self.code = code


def accept(request, token, protocol, paths):
    """Returns the path of a request, the maximum bytes of a message, and the response; None if the request is incomplete."""
    if len(request) > LARGEST_REQUEST:
        raise Refused(431)
    head, end, rest = bytes(request).partition(b"\r\n\r\n")
    if not end:
        return None
    try:
        first, *lines = head.decode("latin-1").split("\r\n")
        method, path, version = [*first.split(" "), "", ""][:3]
        fields: dict[str, str] = {
            name.strip().lower(): value.strip() for name, value in (line.split(":", 1) for line in lines)
        }
    except ValueError:
        raise Refused(400) from None
    if not hmac.compare_digest(fields.get("authorization", "").encode("latin-1"), b"token " + token):
        raise Refused(401)
    if path not in paths:
        raise Refused(404)
    key = fields.get("sec-websocket-key", "")
    is_upgrade = fields.get("upgrade", "").lower() == "websocket" and fields.get("sec-websocket-version") == "13"
    offered = [name.strip() for name in fields.get("sec-websocket-protocol", "").split(",")]
    bound = fields.get(BOUND, str(LARGEST))
    # A client sends no frames before the response.
    if (
        method != "GET"
        or version != "HTTP/1.1"
        or not is_upgrade
        or len(key) != 24
        or protocol not in offered
        or rest
        or not bound.isdecimal()
    ):
        raise Refused(400)
    digest = hashlib.sha1(key.encode("latin-1") + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
    answer = (
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {base64.b64encode(digest).decode()}\r\nSec-WebSocket-Protocol: {protocol}\r\n\r\n"
    )
    return path, int(bound), answer.encode()


def refusal(code):
    return f"HTTP/1.1 {code} Refused\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".encode()


def head(size, kind=BINARY):
    """Returns the header of a frame."""
    if size < 126:
        return struct.pack("!BB", 0x80 | kind, size)
    if size < 65536:
        return struct.pack("!BBH", 0x80 | kind, 126, size)
    return struct.pack("!BBQ", 0x80 | kind, 127, size)


def unmask(data, mask):
    if mask == b"\0\0\0\0":
        return bytes(data)
    size = len(data)
    number = int.from_bytes(data, "big") ^ int.from_bytes((mask * (size // 4 + 1))[:size], "big")
    return number.to_bytes(size, "big")


class Frame:
    """A frame to write, and its position in the sequence of all written bytes."""

    __slots__ = ("parts", "size", "start")

    def __init__(self, parts):
        self.parts = parts
        self.size = sum(map(len, parts))
        self.start: int | None = None

    def rest(self, written):
        """Returns the parts that are not completely written."""
        skipped = written - (self.start or 0)
        if skipped == 0:
            return self.parts
        rest = []
        for part in self.parts:
            if skipped < len(part):
                rest.append(memoryview(part)[skipped:] if skipped else part)
            skipped = max(0, skipped - len(part))
        return rest


class WebSocket:
    """An open connection. Every thread may write, and is blocked while the client does not read.

    A signal handler can raise an exception at any point of a write. One call of C writes bytes and records their number,
    and every other step has the same effect when it is repeated: the next writer continues at the same byte.
    """

    def __init__(self, connected: socket.socket, bound=LARGEST):
        # Maximum bytes of a message to the client.
        self.bound = bound
        self._socket = connected
        # Reentrant: a signal handler may write during a write of its thread.
        self._lock: Any = threading.RLock()
        self._frames: deque[Frame] = deque()
        # Counts of written bytes, whose sum is the position of the next byte.
        self._written = [0]
        # Bytes that were read ahead.
        self._unread = b""
        self.is_closed = False
        # Called if the code of the kernel has closed the socket, which the thread that reads it does not notice.
        self.on_lost = lambda: None

    def write(self, parts):
        """Writes a frame after all earlier ones."""
        self.put(parts)
        self.flush()

    def put(self, parts):
        """Queues a frame, which is written together with the next one."""
        if not self.is_closed:
            self._frames.append(Frame(parts))

    def flush(self):
        """Writes all queued frames."""
        if self._lock._is_owned():
            return  # the interrupted write continues with it
        is_lost = False
        with self._lock:
            while self._frames:
                try:
                    self._write_some()
                except OSError as error:
                    if error.errno in SHORTAGES:
                        time.sleep(0.01)
                        continue
                    is_lost = error.errno in CLOSED_HERE and not self.is_closed
                    self.is_closed = True
                    self._frames.clear()
        if is_lost:
            self.on_lost()

    def _write_some(self):
        written = sum(self._written)
        self._written[:] = [written]
        first = self._frames[0]
        if first.start is None:
            first.start = written
        elif first.start + first.size <= written:
            self._frames.popleft()
            return
        parts, size, end = [*first.rest(written)], first.size, first.start + first.size
        for number in range(1, min(len(self._frames), MAX_FRAMES)):
            frame = self._frames[number]
            size += frame.size
            if size > MAX_BYTES:
                break
            frame.start, end = end, end + frame.size
            parts += frame.parts
        self._written.extend(map(self._socket.sendmsg, (parts[:MAX_PARTS],), ((),), (NO_SIGNAL,)))

    def messages(self):
        """Yields the messages of the client until it closes the connection or violates the protocol."""
        try:
            yield from self._messages()
        except Refused as refused:
            self.write([head(2, CLOSE), struct.pack("!H", refused.code)])
        except OSError:
            pass  # the client has ended

    def _messages(self):
        message, is_open = bytearray(), False
        while True:
            start = self._read(2)
            if start is None:
                return
            first, second = start
            is_final, kind, size = first & 0x80, first & 0x0F, second & 0x7F
            is_control = kind >= CLOSE
            if first & 0x70 or not second & 0x80 or is_control and (size > 125 or not is_final):
                raise Refused(VIOLATION)
            if kind not in (BINARY, CONTINUATION, CLOSE, PING, PONG):
                raise Refused(UNSUPPORTED if kind == TEXT else VIOLATION)
            if not is_control and is_open != (kind == CONTINUATION):
                raise Refused(VIOLATION)
            if size > 125:
                length = self._read(2 if size == 126 else 8)
                if length is None:
                    return
                size = int.from_bytes(length, "big")
            if size + len(message) > LARGEST:
                raise Refused(TOO_LARGE)
            mask = self._read(4)
            data = None if mask is None else self._read(size)
            if data is None:
                return
            data = unmask(data, mask)
            if kind == CLOSE:
                return self.write([head(len(data), CLOSE), data])
            if kind == PING and not self._frames:
                self.write([head(len(data), PONG), data])
            if is_control:
                continue
            if is_final and kind == BINARY:
                yield data
                continue
            message += data
            is_open = not is_final
            if is_final:
                whole, message = bytes(message), bytearray()
                yield whole

    def _read(self, size):
        """Returns this number of bytes; None if the connection ends earlier. Allocates memory for received bytes only."""
        data, self._unread = self._unread[:size], self._unread[size:]
        if len(data) == size:
            return data
        whole = bytearray(data)
        while len(whole) < size:
            rest = size - len(whole)
            data = self._socket.recv(max(AHEAD, min(rest, PIECE)))
            if not data:
                return None
            whole += data[:rest]
            self._unread = data[rest:]
        return whole

    def close(self):
        self.is_closed = True
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it is already closed

    def leave(self):
        """Closes the connection in a forked process, without an effect on its parent."""
        self.is_closed = True
        if self._socket.fileno() >= 0:
            os.close(self._socket.detach())
