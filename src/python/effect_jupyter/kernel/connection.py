"""A kernel's own connection: two WebSockets over a Unix socket, to exactly one client.

The gateway has made the listener, and everything that it hands to the kernel is its descriptor. `/shell` takes what is
asked in turn and gives all output; `/control` has what must not wait behind that: the control channel, subshells, and
what is entered for `input()`. Standard library only.
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
# Descriptors of this process that a kernel with a connection of its own does not need.
superfluous: list[int] = []
# Handshakes at the same time, of which the oldest has to go, and the seconds that one may take.
MOST_PENDING, HANDSHAKE = 16, 5.0


def take_listener():
    """The listener that this process was given; None if it was given none. Nothing that the code starts gets it."""
    descriptor = os.environ.pop(LISTENER, None)
    if descriptor is None:
        return None
    listener = socket.socket(fileno=int(descriptor))
    listener.set_inheritable(False)
    return listener


def close_superfluous():
    for descriptor in superfluous:
        os.close(descriptor)
    superfluous.clear()


def user_of(connected):
    """The user at the other end, or who has made a listener; None if the system does not tell."""
    if not hasattr(socket, "SO_PEERCRED"):
        return None
    return struct.unpack("3i", connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[1]


class Handshake:
    """A peer that has not shown yet that it is the client."""

    def __init__(self, connected):
        self.socket = connected
        self.request = bytearray()
        self.deadline = time.monotonic() + HANDSHAKE


class Door:
    """Lets the client in, once for each of the paths, and nothing else at any time."""

    def __init__(self, listener, token):
        self._listener = listener
        self._token = token
        self._selector = selectors.DefaultSelector()
        self._pending = []
        self._taken = {}
        os.register_at_fork(after_in_child=self._close_in_child)

    def open(self):
        """Waits until the client has connected to both, which are what this gives."""
        self._listener.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ)
        while len(self._taken) < len(PATHS):
            bound = min((handshake.deadline for handshake in self._pending), default=None)
            pause = None if bound is None else max(0.0, bound - time.monotonic())
            for key, _ in self._selector.select(pause):
                if key.data is None:
                    self._welcome()
                elif key.data in self._pending:
                    self._read(key.data)
            for handshake in [*self._pending]:
                if time.monotonic() > handshake.deadline:
                    self._dismiss(handshake)
        for handshake in [*self._pending]:
            self._dismiss(handshake)
        self._selector.close()
        self._listener.close()
        return [self._taken[path] for path in PATHS]

    def _welcome(self):
        try:
            connected, _ = self._listener.accept()
        except OSError:
            return time.sleep(0.01)  # it has gone away, or there are no descriptors now
        connected.setblocking(False)
        # The program is the user that has started the gateway.
        if user_of(connected) != user_of(self._listener):
            return connected.close()
        if len(self._pending) == MOST_PENDING:
            self._dismiss(self._pending[0])
        handshake = Handshake(connected)
        self._pending.append(handshake)
        self._selector.register(connected, selectors.EVENT_READ, handshake)

    def _read(self, handshake):
        try:
            data = handshake.socket.recv(websocket.LARGEST_REQUEST + 1)
            handshake.request += data
            accepted = websocket.accept(handshake.request, self._token, PROTOCOL, PATHS)
            if accepted is None:
                return None if data else self._dismiss(handshake)
            path, bound, answer = accepted
            if path in self._taken:
                raise websocket.Refused(409)
            handshake.socket.sendall(answer)
        except websocket.Refused as refused:
            return self._dismiss(handshake, websocket.refusal(refused.code))
        except OSError:
            return self._dismiss(handshake)
        self._forget(handshake)
        handshake.socket.setblocking(True)
        self._taken[path] = websocket.WebSocket(handshake.socket, bound)

    def _dismiss(self, handshake, answer=b""):
        self._forget(handshake)
        try:
            handshake.socket.send(answer)
        except OSError:
            pass  # it does not listen
        handshake.socket.close()

    def _forget(self, handshake):
        self._pending.remove(handshake)
        self._selector.unregister(handshake.socket)

    def _close_in_child(self):
        """A process that the code forked is no kernel, and its end is not that of one."""
        for open_here in (self._listener, *(handshake.socket for handshake in self._pending)):
            if open_here.fileno() >= 0:
                os.close(open_here.detach())
        for connected in self._taken.values():
            connected.leave()
