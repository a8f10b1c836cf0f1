"""The connection of a kernel to its client: two WebSockets over a Unix socket, for exactly one client.

The gateway creates the listener and passes its descriptor to the kernel. `/shell` carries requests to the main shell and
all output. `/control` carries what does not wait for output: the control channel, subshells and replies to `input()`.
Standard library only.
"""

import os
import selectors
import socket
import struct
import time

from effect_jupyter.kernel import websocket

PROTOCOL = "v1.kernel.websocket.jupyter.org"
LISTENER = "EFFECT_JUPYTER_LISTENER"
PATHS = ("/shell", "/control")
# Descriptors of ZeroMQ's listeners, which a kernel with this connection does not use.
unused: list[int] = []
# Maximum handshakes at the same time, beyond which the oldest is refused, and maximum seconds of each.
MAX_PENDING, HANDSHAKE_TIMEOUT = 16, 5.0


def take_listener():
    """Returns the listener of the gateway; None if there is none. Child processes do not inherit it."""
    descriptor = os.environ.pop(LISTENER, None)
    if descriptor is None:
        return None
    listener = socket.socket(fileno=int(descriptor))
    listener.set_inheritable(False)
    return listener


def close_unused():
    for descriptor in unused:
        os.close(descriptor)
    unused.clear()


def user_of(connected):
    """Returns the user of the peer, or the user that created a listener; None if the system does not report it."""
    if not hasattr(socket, "SO_PEERCRED"):
        return None
    return struct.unpack("3i", connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[1]


class Handshake:
    """A connection whose request is incomplete."""

    def __init__(self, connected):
        self.socket = connected
        self.request = bytearray()
        self.deadline = time.monotonic() + HANDSHAKE_TIMEOUT


class Acceptor:
    """Accepts one connection for each path, and closes the listener then."""

    def __init__(self, listener, token):
        self._listener = listener
        self._token = token
        self._selector = selectors.DefaultSelector()
        self._pending = []
        self._taken = {}
        os.register_at_fork(after_in_child=self._close_in_child)

    def accept(self):
        """Returns the connections in the order of the paths. Waits until the client has opened all of them."""
        self._listener.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ)
        while len(self._taken) < len(PATHS):
            bound = min((handshake.deadline for handshake in self._pending), default=None)
            pause = None if bound is None else max(0.0, bound - time.monotonic())
            for key, _ in self._selector.select(pause):
                if key.data is None:
                    self._accept()
                elif key.data in self._pending:
                    self._read(key.data)
            for handshake in [*self._pending]:
                if time.monotonic() > handshake.deadline:
                    self._refuse(handshake)
        for handshake in [*self._pending]:
            self._refuse(handshake)
        self._selector.close()
        self._listener.close()
        return [self._taken[path] for path in PATHS]

    def _accept(self):
        try:
            connected, _ = self._listener.accept()
        except OSError:
            return time.sleep(0.01)  # the peer has ended, or there are no descriptors at present
        connected.setblocking(False)
        # The program and the gateway, which created the listener, have the same user.
        if user_of(connected) != user_of(self._listener):
            return connected.close()
        if len(self._pending) == MAX_PENDING:
            self._refuse(self._pending[0])
        handshake = Handshake(connected)
        self._pending.append(handshake)
        self._selector.register(connected, selectors.EVENT_READ, handshake)

    def _read(self, handshake):
        try:
            data = handshake.socket.recv(websocket.LARGEST_REQUEST + 1)
            handshake.request += data
            accepted = websocket.accept(handshake.request, self._token, PROTOCOL, PATHS)
            if accepted is None:
                return None if data else self._refuse(handshake)
            path, bound, answer = accepted
            if path in self._taken:
                raise websocket.Refused(409)
            handshake.socket.sendall(answer)
        except websocket.Refused as refused:
            return self._refuse(handshake, websocket.refusal(refused.code))
        except OSError:
            return self._refuse(handshake)
        self._forget(handshake)
        handshake.socket.setblocking(True)
        self._taken[path] = websocket.WebSocket(handshake.socket, bound)

    def _refuse(self, handshake, answer=b""):
        self._forget(handshake)
        try:
            handshake.socket.send(answer)
        except OSError:
            pass  # the peer does not read
        handshake.socket.close()

    def _forget(self, handshake):
        self._pending.remove(handshake)
        self._selector.unregister(handshake.socket)

    def _close_in_child(self):
        """Closes everything in a forked process: open copies would hide the end of the kernel."""
        for open_here in (self._listener, *(handshake.socket for handshake in self._pending)):
            if open_here.fileno() >= 0:
                os.close(open_here.detach())
        for connected in self._taken.values():
            connected.leave()
