"""A gateway that several programs of one user share, and that outlives them.

Its folder has a lock, a Unix socket and a file with its address. The supervisor holds the lock as long as it runs, and
listens at the socket before it starts the gateway. A program that uses the gateway holds a connection to the socket, its
lease, which the system closes however the program ends. Programs and the supervisor exchange lines of JSON:

  to programs:   {"ready": ID, "lease": NUMBER} when the gateway listens; {"failed": {"exitCode", "output", "refused",
                 "options"}} if it did not start; {"ended": {"exitCode", "output"}}; {"log": LINE};
                 {"violation", "kernel"}
  from programs: {"idleTimeToLive": SECONDS or null}, {"stop": true}
  to the gateway: {"leaseEnded": NUMBER}, {"isUsed": true}
  from the gateway: the lines of `main.py`, and {"unusedFor": SECONDS, or null while it is used} as the answer

The environment variable EFFECT_JUPYTER_SHARED is a JSON object: {"folder", "idleTimeToLive", "state": what the file has
besides "pid" and "port"}. Standard library only.
"""

import fcntl
import json
import os
import selectors
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from effect_jupyter.gateway.folders import make_private, remove_unless_held
from effect_jupyter.sandbox.placeholders import is_at

# The exit status if another process has the lock.
TAKEN = 75
# Seconds in which the first program connects, at least.
FIRST_LEASE = 5.0
# Seconds in which the gateway says how long it was unused. One that hangs is of no use.
ANSWER_BOUND = 60.0
# Lines of the log that become part of errors, bytes of a line, and bytes that a program has not read.
MAX_LINES, MAX_LINE, MAX_UNSENT = 50, 65536, 1_000_000
LOCK, SOCKET, STATE = "lock", "socket", "gateway.json"
# The variable with the descriptor of messages to the gateway.
MESSAGES = "EFFECT_JUPYTER_MESSAGES"


class Peer:
    """One end of a pipe or a connection, for lines. It never blocks."""

    def __init__(self, descriptor: int, on_line: Callable[[bytes], None], number: int = 0):
        os.set_blocking(descriptor, False)
        self.descriptor = descriptor
        self.number = number
        self.unsent = b""
        self._received = b""
        self._on_line = on_line

    def send(self, message: dict[str, Any], *, can_drop: bool = False) -> None:
        if can_drop and len(self.unsent) > MAX_UNSENT:
            return
        self.unsent += json.dumps(message).encode() + b"\n"
        self.flush()

    def flush(self) -> None:
        try:
            if self.unsent:
                self.unsent = self.unsent[os.write(self.descriptor, self.unsent) :]
        except BlockingIOError:
            pass
        except OSError:
            self.unsent = b""  # it ended, which its reader notices

    def read(self) -> bool:
        """Passes the lines that are there. Returns False at the end."""
        try:
            data = os.read(self.descriptor, 65536)
        except BlockingIOError:
            return True
        except OSError:
            data = b""
        *lines, self._received = (self._received + data).split(b"\n")
        if len(self._received) > MAX_LINE or not data and self._received:
            lines.append(self._received)
            self._received = b""
        for line in lines:
            self._on_line(line)
        return bool(data)


def claim(folder: str) -> "int | None":
    """Locks the folder until this process ends. Returns the lock's descriptor; None if another process has it."""
    path = os.path.join(folder, LOCK)
    while True:
        try:
            # The program has checked the owner of one that exists.
            make_private(folder)
            lock = os.open(path, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o600)
        except FileNotFoundError:
            continue  # a gateway that has just ended has removed it
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return None
        if is_at(lock, path):
            return lock
        os.close(lock)


def listen(folder: str) -> socket.socket:
    """Removes what a gateway that was killed has left, and listens."""
    for name in os.listdir(folder):
        if name != LOCK:
            os.unlink(os.path.join(folder, name))
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(os.path.join(folder, SOCKET))
    listener.listen(128)
    listener.setblocking(False)
    return listener


def leave_program() -> None:
    """Continues in a process of its own session; the one of the program ends when it has that."""
    reader, writer = os.pipe()
    if os.fork() != 0:
        os.close(writer)
        os.read(reader, 1)
        os._exit(0)
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(null, stream)
    for descriptor in (null, reader, writer):
        os.close(descriptor)


def start(settings: str) -> "Shared":
    """Returns in a process that outlives the program, with the lock and a listener."""
    parsed = json.loads(settings)
    lock = claim(parsed["folder"])
    if lock is None:
        sys.exit(TAKEN)
    listener = listen(parsed["folder"])
    leave_program()
    return Shared(parsed, lock, listener)


class Shared:
    """The folder of the gateway, its leases and its standard streams. It is made before the gateway is started."""

    def __init__(self, settings: dict[str, Any], lock: int, listener: socket.socket):
        self._folder: str = settings["folder"]
        self._state: dict[str, Any] = settings["state"]
        self._lock = lock
        self._listener = listener
        self._leases: dict[int, Peer] = {}
        self._count = 0
        self._log: deque[str] = deque(maxlen=MAX_LINES)
        self._refused: Any = None
        self._is_ready = self._is_over = False
        self._time_to_live: float | None = settings["idleTimeToLive"]
        self._unused_since = time.monotonic()
        self._asked_at: float | None = None
        messages, to_gateway = os.pipe()
        from_gateway, stdout = os.pipe()
        log_of_gateway, stderr = os.pipe()
        self._ends_of_gateway = (messages, stdout, stderr)
        self._gateway = Peer(to_gateway, ignore)
        self._output = Peer(from_gateway, self._receive_output)
        self._errors = Peer(log_of_gateway, self._receive_log)

    def become_gateway(self) -> None:
        """Gives the forked child its standard output and error, and the descriptor of messages to it."""
        messages, *streams = self._ends_of_gateway
        for stream, end in enumerate(streams, 1):
            os.dup2(end, stream)
        # Not as standard input, which processes of the gateway inherit.
        os.environ[MESSAGES] = str(os.dup(messages))
        self.close_in_child()

    def close_in_child(self) -> None:
        """Closes all descriptors, so that the lock and the connections end with the supervisor."""
        peers = (self._gateway, self._output, self._errors)
        for descriptor in (*self._ends_of_gateway, *(peer.descriptor for peer in peers), self._lock):
            os.close(descriptor)
        self._listener.close()

    def wait(self, gateway: int, wakeup: int, reap: "Callable[[int], int | None]") -> "int | None":
        """Serves programs until the gateway has ended, or is to be ended. Returns its status if it has."""
        for end in self._ends_of_gateway:
            os.close(end)
        with selectors.DefaultSelector() as selector:
            selector.register(wakeup, selectors.EVENT_READ)
            selector.register(self._listener, selectors.EVENT_READ)
            for peer in (self._output, self._errors):
                selector.register(peer.descriptor, selectors.EVENT_READ, peer)
            while True:
                status = reap(gateway)
                if status is not None:
                    self._output.read()
                    self._errors.read()
                    return status
                self._check_use()
                if self._is_over:
                    return None
                for peer in (self._gateway, *self._leases.values()):
                    watch(selector, peer, 0 if peer is self._gateway else selectors.EVENT_READ)
                for key, _ in selector.select(self._pause()):
                    if key.fd == wakeup:
                        signals = os.read(wakeup, 512)
                        self._is_over = self._is_over or any(number != signal.SIGCHLD for number in signals)
                    elif key.data is None:
                        self._accept()
                    else:
                        self._serve(selector, key.data)

    def end(self, status: "int | None") -> None:
        """Tells the programs. Those that connect from now on start another gateway when this process has ended."""
        self._remove_files(SOCKET, STATE)
        self._listener.close()
        code = None if status is None else os.waitstatus_to_exitcode(status)
        end = {"exitCode": 128 - code if code is not None and code < 0 else code, "output": [*self._log]}
        failed = {**end, "refused": self._refused, "options": self._state["options"]}
        message = {"ended": end} if self._is_ready else {"failed": failed}
        for lease in self._leases.values():
            lease.send(message)

    def remove(self) -> None:
        """Removes the folder; this process ends next, and releases the lock."""
        self._remove_files(LOCK)
        for folder in (self._folder, os.path.dirname(self._folder)):
            remove_unless_held(folder)

    def _remove_files(self, *names: str) -> None:
        # If the folder was deleted, this may be that of another gateway.
        if is_at(self._lock, os.path.join(self._folder, LOCK)):
            for name in names:
                try:
                    os.unlink(os.path.join(self._folder, name))
                except OSError:
                    pass  # it was never written

    def _accept(self) -> None:
        try:
            connected, _ = self._listener.accept()
        except OSError:
            return time.sleep(0.01)  # the program has ended, or there are no descriptors at present
        self._count += 1
        lease = Peer(connected.detach(), self._receive_request, self._count)
        self._leases[lease.number] = lease
        if self._is_ready:
            self._welcome(lease)

    def _serve(self, selector: selectors.BaseSelector, peer: Peer) -> None:
        peer.flush()
        if peer is self._gateway or peer.read():
            return
        selector.unregister(peer.descriptor)
        if peer.number in self._leases:
            del self._leases[peer.number]
            os.close(peer.descriptor)
            self._unused_since = time.monotonic()
            self._gateway.send({"leaseEnded": peer.number})

    def _welcome(self, lease: Peer) -> None:
        lease.send({"ready": self._state["id"], "lease": lease.number})

    def _receive_request(self, line: bytes) -> None:
        message = parse(line)
        if "idleTimeToLive" in message:
            # The latest program decides.
            self._time_to_live = message["idleTimeToLive"]
        self._is_over = self._is_over or "stop" in message

    def _receive_output(self, line: bytes) -> None:
        message = parse(line)
        if "port" in message:
            self._write_state(message["port"])
            self._is_ready = True
            for lease in self._leases.values():
                self._welcome(lease)
        elif "refused" in message:
            self._refused = message["refused"]
        elif "violation" in message:
            lease = self._leases.get(message.pop("lease", None) or 0)
            for receiver in self._leases.values() if lease is None else [lease]:
                receiver.send(message, can_drop=True)
        elif "unusedFor" in message:
            self._receive_use(message["unusedFor"])

    def _receive_log(self, line: bytes) -> None:
        self._log.append(line.decode(errors="replace"))
        for lease in self._leases.values():
            lease.send({"log": self._log[-1]}, can_drop=True)

    def _receive_use(self, unused_for: "float | None") -> None:
        self._asked_at = None
        now, time_to_live = time.monotonic(), self._time_to_live or 0.0
        if unused_for is None:
            # It is asked again after a second at the earliest.
            self._unused_since = now + max(0.0, 1.0 - time_to_live)
        else:
            self._unused_since = max(self._unused_since, now - unused_for)
            ends_at = self._ends_at()
            self._is_over = self._is_over or ends_at is not None and ends_at <= now

    def _check_use(self) -> None:
        """Asks the gateway whether it is used when no program has had a lease for long enough."""
        ends_at, now = self._ends_at(), time.monotonic()
        if ends_at is None or now < ends_at:
            return
        if self._asked_at is None and self._is_ready:
            self._asked_at = now
            self._gateway.send({"isUsed": True})
        elif self._asked_at is None or now >= self._asked_at + ANSWER_BOUND:
            self._is_over = True

    def _ends_at(self) -> "float | None":
        if self._leases:
            return None
        if self._count > 0 and not self._is_ready:
            return self._unused_since  # no program waits for the start any more
        if self._time_to_live is None:
            return None
        return self._unused_since + max(self._time_to_live, FIRST_LEASE if self._count == 0 else 0.0)

    def _pause(self) -> "float | None":
        ends_at = self._ends_at()
        if ends_at is not None and self._asked_at is not None:
            ends_at = self._asked_at + ANSWER_BOUND
        return None if ends_at is None else max(0.0, ends_at - time.monotonic())

    def _write_state(self, port: int) -> None:
        path = os.path.join(self._folder, STATE)
        with open(os.open(f"{path}.new", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
            json.dump({**self._state, "port": port, "pid": os.getpid()}, file)
        os.rename(f"{path}.new", path)


def ignore(_: bytes) -> None:
    """Receives nothing: the gateway is only written to."""


def parse(line: bytes) -> dict[str, Any]:
    """Returns the object of a line; an empty one for other lines, which libraries in the gateway may print."""
    try:
        message = json.loads(line)
    except ValueError:
        return {}
    return message if isinstance(message, dict) else {}


def watch(selector: selectors.BaseSelector, peer: Peer, events: int) -> None:
    """Waits for the events of a peer, and until it can be written to while there is something to write."""
    if peer.unsent:
        events |= selectors.EVENT_WRITE
    known = selector.get_map().get(peer.descriptor)
    if known is None and events:
        selector.register(peer.descriptor, events, peer)
    elif known is not None and not events:
        selector.unregister(peer.descriptor)
    elif known is not None and known.events != events:
        selector.modify(peer.descriptor, events, peer)
