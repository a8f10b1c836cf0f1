"""Passes messages between kernels and WebSockets as they are, many at a time.

Jupyter Server goes through its event loop and several layers for each message, and beside that unpacks and checks
all output once more to know whether a kernel is busy. Only connections of the protocol v1 are relayed this way.
"""

import functools
import hmac
import json
import struct
import weakref
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import zmq
from jupyter_client.manager import KernelManager
from jupyter_client.session import DELIM, Session
from jupyter_server._tz import utcnow
from jupyter_server.services.kernels.connection import base
from jupyter_server.services.kernels.connection.channels import ZMQChannelsWebsocketConnection
from jupyter_server.services.kernels.kernelmanager import MappingKernelManager
from tornado.iostream import StreamClosedError
from tornado.websocket import WebSocketHandler, WebSocketProtocol13
from zmq.eventloop.zmqstream import ZMQStream

from effect_jupyter.compatibility import has_parameters, references

V1 = "v1.kernel.websocket.jupyter.org"
# Not as enumerations, whose operators take longer than a message.
EVENTS, NOBLOCK, POLLIN = int(zmq.EVENTS), int(zmq.NOBLOCK), int(zmq.POLLIN)
CHANNELS = ("iopub", "shell", "control", "stdin")
# After these another kernel has its turn.
MAX_MESSAGES = 64
MAX_BYTES = 1024 * 1024


def encoded(channel, parts):
    """A message of the protocol v1 within a frame of a WebSocket, in pieces."""
    name = channel.encode()
    offsets = [8 * (3 + len(parts)), 0]
    offsets[1] = offsets[0] + len(name)
    for part in parts:
        offsets.append(offsets[-1] + len(part))
    size = offsets[-1]
    if size < 126:
        head = struct.pack("!BB", 0x82, size)
    elif size < 65536:
        head = struct.pack("!BBH", 0x82, 126, size)
    else:
        head = struct.pack("!BBQ", 0x82, 127, size)
    return [head, struct.pack(f"<{1 + len(offsets)}Q", len(offsets), *offsets), name, *parts]


def decoded(message):
    """The channel and the parts of a message of the protocol v1."""
    (count,) = struct.unpack_from("<Q", message)
    if not 2 <= count <= len(message) // 8:
        raise ValueError(f"{count} is not a number of offsets for {len(message)} bytes")
    offsets = struct.unpack_from(f"<{count}Q", message, 8)
    channel = message[offsets[0] : offsets[1]].decode()
    return channel, [message[start:end] for start, end in zip(offsets[1:], offsets[2:])]


class Channel(ZMQStream):
    """Takes many messages in one go, and sends at once."""

    is_draining = False
    on_drained: Callable[[], None] | None = None
    channel = ""
    socket: Any

    @classmethod
    def instead_of(cls, stream):
        """One that has the socket of the other, which is not to be used any more."""
        socket, loop = stream.socket, stream.io_loop
        loop.remove_handler(socket)
        stream.socket = None
        return cls(socket, loop)

    def _handle_events(self, fd, events):
        if self._flushed or self.socket is None or self.socket.closed:
            return super()._handle_events(fd, events)
        self.is_draining = True
        try:
            self._drain()
        finally:
            self.is_draining = False
            try:
                if self.on_drained is not None:
                    self.on_drained()
            finally:
                if self.socket is not None and self.sending():
                    super()._handle_events(fd, events)
                else:
                    self._look_again()

    def _drain(self):
        size = 0
        for _ in range(MAX_MESSAGES):
            if self._recv_callback is None or size > MAX_BYTES:
                return
            try:
                parts = self.socket.recv_multipart(NOBLOCK, copy=self._recv_copy)
            except zmq.Again:
                return
            size += sum(map(len, parts))
            self._run_callback(self._recv_callback, parts)
            if self.socket is None:
                return

    def send_multipart(self, msg, flags=0, copy=True, track=False, callback=None, **kwargs):
        if track or callback is not None or kwargs or self.sending():
            return super().send_multipart(msg, flags, copy, track, callback, **kwargs)
        try:
            self.socket.send_multipart(msg, flags | NOBLOCK, copy=copy)
        except zmq.Again:
            return super().send_multipart(msg, flags, copy)
        self._look_again()

    def _look_again(self):
        """The descriptor does not tell of what came while the socket was used for something else."""
        if self.socket is not None and self._recv_callback is not None:
            if self.socket.getsockopt(EVENTS) & POLLIN:
                self.io_loop.add_callback(self._handle_events, self.socket, 0)


class Relay(ZMQChannelsWebsocketConnection):
    """A connection that copies bytes, where `relays` allows that."""

    relays = False
    _is_relayed = False
    _frames: Any = ()
    # Messages that came after the connection broke: they are for the next one of this session.
    _late: Any = ()
    # True if Jupyter Server counts this connection as one of the kernel's.
    _is_counted = False
    # By kernel and session: the request for input that was sent last and has no reply. A connection that broke may have
    # lost either, and the kernel waits for the reply.
    _unanswered: Any = weakref.WeakKeyDictionary()
    websocket_handler: Any

    def connect(self):
        kernels = self.multi_kernel_manager
        # Jupyter Server itself does what needs to look into messages.
        looks = self.limit_rate or not kernels.allow_tracebacks or kernels.allowed_message_types
        packs = self.websocket_handler.get_compression_options() is not None
        self._is_relayed = self.relays and self.subprotocol == V1 and not looks and not packs
        self._frames, self._late = [], []
        self._is_counted = True
        connected = super().connect()
        if connected is not None:
            connected.add_done_callback(self._send_again)
        for stream in self.channels.values():
            if isinstance(stream, Channel):
                stream.on_drained = self._write_frames
        return connected

    def create_stream(self):
        super().create_stream()
        if self.relays:
            for name in CHANNELS:
                self.channels[name] = Channel.instead_of(self.channels[name])
                self.channels[name].channel = name

    @property
    def _inputs(self):
        return self._unanswered.setdefault(self.kernel_manager, {})

    def _send_again(self, _):
        # The client knows the request if it has got it before, as one of those that the server kept.
        unanswered = self._inputs.get(self.session_key)
        if "stdin" in self.channels and unanswered is not None:
            self.handle_outgoing_message(self.channels["stdin"], unanswered)

    def handle_outgoing_message(self, stream: Any, outgoing_msg):
        if not self._is_relayed:
            return super().handle_outgoing_message(stream, outgoing_msg)
        manager: Any = self.kernel_manager
        if stream.channel == "shell" and manager.shutting_down:
            return  # Jupyter interrupts what runs first: the code did not end by itself.
        if stream.channel == "stdin":
            # Also one that comes too late for this connection: what it kept is lost if there is another one already.
            self._inputs[self.session_key] = outgoing_msg
        socket = self.websocket_handler.ws_connection
        if socket is None or socket.is_closing():
            return self._late.append((stream.channel, outgoing_msg))
        parts = outgoing_msg[outgoing_msg.index(DELIM) + 2 :]
        self._frames += encoded(stream.channel, parts)
        if not stream.is_draining:
            self._write_frames()

    def disconnect(self):
        is_counted, self._is_counted = self._is_counted, False
        if not is_counted:
            return self._disconnect_uncounted()
        super().disconnect()
        late, self._late = self._late, []
        kept = self.multi_kernel_manager._kernel_buffers.get(self.kernel_id) if late else None
        if kept is not None and kept["session_key"] == self.session_key:
            kept["buffer"][:0] = late

    def _disconnect_uncounted(self):
        """Ends a connection that broke before it was counted. Jupyter Server subtracts it all the same, and keeps output
        only if the count is exactly 0; without that it would never keep any again.
        """
        kernels = self.multi_kernel_manager
        # With one more than needed, it does not start to keep output anew, without what it has kept.
        kernels.notify_connect(self.kernel_id)
        kernels.notify_connect(self.kernel_id)
        super().disconnect()
        kernels.notify_disconnect(self.kernel_id)

    def _write_frames(self):
        if not self._frames:
            return
        frames, self._frames = self._frames, []
        socket = self.websocket_handler.ws_connection
        if socket is None or socket.is_closing():
            return self.log.warning("Output came for a connection that is closed: %s", self.session_key)
        try:
            socket.stream.write(b"".join(frames))
        except StreamClosedError:
            self.log.warning("Output came for a connection that is lost: %s", self.session_key)

    def handle_incoming_message(self, incoming_msg):
        if not self._is_relayed or not self.channels:
            return super().handle_incoming_message(incoming_msg)
        channel, parts = decoded(incoming_msg)
        stream = self.channels.get(channel)
        if stream is None:
            return self.log.warning("No such channel: %r", channel)
        if channel == "stdin":
            self._inputs.pop(self.session_key, None)
        stream.send_multipart([DELIM, self.session.sign(parts[:4]), *parts])


class Activity(MappingKernelManager):
    """Knows what kernels are doing without unpacking what they say, where `relays` allows that."""

    relays = False

    def start_watching_activity(self, kernel_id):
        super().start_watching_activity(kernel_id)
        if self.relays:
            kernel: Any = self.get_kernel(kernel_id)
            kernel._activity_stream = Channel.instead_of(kernel._activity_stream)
            kernel._activity_stream.on_recv(functools.partial(self._record_activity, kernel))

    def _record_activity(self, kernel, message):
        start = message.index(DELIM) + 2
        kind = json.loads(message[start])["msg_type"]
        asked = (json.loads(message[start + 1]) or {}).get("msg_type")
        is_tracked = self.track_message_type(asked)
        if is_tracked or kernel.execution_state == "busy" or self.track_message_type(kind):
            self.last_kernel_activity = kernel.last_activity = utcnow()
        if kind == "status":
            signed = message[start : start + 4]
            if not hmac.compare_digest(kernel.session.sign(signed), message[start - 1]):
                raise ValueError("A status with a wrong signature")
            state = json.loads(signed[3])["execution_state"]
            if is_tracked:
                kernel.execution_state = state
            elif kernel.execution_state == "starting" and state != "starting":
                kernel.execution_state = "idle"


def check_jupyter():
    """Tells whether all that is replaced here is as expected, tried out on a message."""
    connection = ZMQChannelsWebsocketConnection
    return (
        has_parameters(connection.handle_outgoing_message, "self", "stream", "outgoing_msg")
        and references(
            connection.handle_outgoing_message, "feed_identities", "_on_error", "_limit_rate", "_on_zmq_reply"
        )
        and references(connection.kernel_manager.fget, "parent")
        and hasattr(KernelManager, "shutting_down")
        and has_parameters(connection.handle_incoming_message, "self", "incoming_msg")
        and references(connection.handle_incoming_message, "send_raw", "allowed_message_types", "channels")
        and has_parameters(connection.create_stream, "self")
        and references(connection.create_stream, "channels", "channel")
        and references(connection.connect, "create_stream", "on_recv_stream", "handle_outgoing_message")
        and references(WebSocketHandler.write_message, "ws_connection", "is_closing")
        and has_parameters(connection.disconnect, "self")
        and references(connection.disconnect, "start_buffering", "notify_disconnect")
        and references(connection.connect, "notify_connect")
        and references(MappingKernelManager.start_buffering, "_kernel_buffers")
        and has_parameters(MappingKernelManager.start_watching_activity, "self", "kernel_id")
        and references(MappingKernelManager.start_watching_activity, "_activity_stream", "track_message_type")
        and encodes_as_jupyter()
        and sends_as_jupyter()
        and drains_as_zeromq()
    )


def encodes_as_jupyter():
    for size in (0, 1000, 70000):
        parts = [b'{"msg_id":"1"}', b"{}", b"{}", b'{"code":"' + b"x" * size + b'"}', b"\0\xff", b""]
        message = base.serialize_msg_to_ws_v1(parts, "iopub")
        frames = []
        stream = SimpleNamespace(write=frames.append)
        socket: Any = SimpleNamespace(
            FIN=WebSocketProtocol13.FIN, mask_outgoing=False, _wire_bytes_out=0, stream=stream
        )
        WebSocketProtocol13._write_frame(socket, True, 0x2, message)
        if b"".join(encoded("iopub", parts)) != b"".join(frames):
            return False
        if decoded(message) != base.deserialize_msg_from_ws_v1(message) or decoded(message)[1] != parts:
            return False
    return True


def sends_as_jupyter():
    session, sent = Session(key=b"key"), []
    parts = [b"{}", b"{}", b"{}", b"{}", b"buffer"]
    socket: Any = SimpleNamespace(send_multipart=lambda message, *_, **__: sent.append(message))
    session.send_raw(socket, parts)
    return sent == [[DELIM, session.sign(parts[:4]), *parts]]


def drains_as_zeromq():
    heard, later = [], []
    loop: Any = SimpleNamespace(
        add_handler=lambda *_: None,
        remove_handler=lambda *_: None,
        READ=1,
        add_callback=lambda *call: later.append(call),
    )
    context = zmq.Context()
    ours, theirs = context.socket(zmq.PAIR), context.socket(zmq.PAIR)
    try:
        theirs.bind("inproc://check")
        ours.connect("inproc://check")
        channel = Channel(ours, loop)
        for number in range(3):
            theirs.send_multipart([b"%d" % number, b""])
        channel.on_recv(heard.append)
        channel._handle_events(ours, 0)
        channel.send_multipart([b"answer"])
        return heard == [[b"0", b""], [b"1", b""], [b"2", b""]] and theirs.recv_multipart(zmq.NOBLOCK) == [b"answer"]
    finally:
        ours.close(0)
        theirs.close(0)
        context.term()
