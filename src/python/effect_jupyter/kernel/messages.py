"""Encodes, sends and decodes messages in the protocol v1 of Jupyter's WebSockets."""

import json
import os
import struct
import threading
from datetime import datetime, timezone
from json import loads
from typing import Any

from jupyter_client.session import DELIM

from effect_jupyter.kernel.websocket import head

# The type of the message that replaces one above the maximum of the client.
TOO_LARGE = "effect_jupyter_too_large"


class Channel:
    """Stands for the socket of a channel."""

    def __init__(self, name, sender):
        self.channel = name
        self.sender = sender

    def send_multipart(self, parts, *_, **__):
        """Sends a message that is serialized for ZeroMQ."""
        self.sender.send_parts(self.channel, parts[parts.index(DELIM) + 2 :])


class Sender:
    """Sends messages to the client in place of `Session.send`, without signatures."""

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
        """Sends the messages of this thread by the connection without output."""
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
        # Another message follows at once: one write for both.
        if state == "busy" or name == "shell" and kind.endswith("_reply"):
            connected.put(frame)
        else:
            connected.write(frame)
        return message

    def send_parts(self, name, parts):
        """Sends a message whose parts are serialized."""
        if self._shell is not None and os.getpid() == self._pid:
            self._flush()
            self._shell.write(self._bounded(name, [plain(part) for part in parts], self._shell.bound))

    def _bounded(self, name, parts, bound):
        """Returns the frame of a message, or of one that reports it as too large."""
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
        """Returns the serialized header of the parent, which consecutive messages share."""
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
    """Returns the parts of the frame of a message."""
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
    """Returns the channel and the message of a frame. Raises ValueError if the frame is malformed."""
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
    header, parent, metadata, content = (loads(bytes(part)) for part in parts[1:5])
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
