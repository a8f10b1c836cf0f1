"""The manager of one kernel, and the end of its standard error."""

import asyncio
import errno
import functools
import inspect
import os
import signal
import socket
import time
from datetime import datetime, timezone
from typing import Any

from kernel_gateway.services.kernels.manager import KernelGatewayIOLoopKernelManager
from traitlets import Instance, default, observe

from effect_jupyter.gateway import join
from effect_jupyter.gateway.environment import Environment
from effect_jupyter.gateway.limits import Room, Told, refusal
from effect_jupyter.gateway.processes import MARK, mark
from effect_jupyter.gateway.retention import Retention
from effect_jupyter.sandbox.processes import interrupt, is_stopped

# The name of the gateway's kernelspec, which precedes one of the user with this name.
OWN_KERNEL = "python3"
# A request with this variable asks for a kernel that its client connects to directly; its value is the maximum of the
# bytes of a message.
ASKED, LISTENER = "EFFECT_JUPYTER_OWN_CONNECTION", "EFFECT_JUPYTER_LISTENER"


class Manager(KernelGatewayIOLoopKernelManager):
    """Manages one kernel, in the environment of its interpreter, and keeps the end of its standard error."""

    # Set before the first kernel.
    environment: Environment
    common: dict[str, str]  # the variables of all kernels that clients do not send
    room: Room
    errors: "Errors | None" = None
    provisioner: Any
    kernel_spec: Any
    # True if the gateway uses this class for its kernels.
    is_used = False
    # The path of the kernel's socket; None if clients connect to the gateway.
    socket_path: str | None = None
    # Bytes of output that the gateway keeps as the client of the kernel; None if programs are its clients.
    output_retention: int | None = None
    retention: Retention | None = None
    # Jupyter sets it at each message.
    last_activity: Any = Instance(datetime)
    # The monotonic time of the last message.
    active_at: float | None = None

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.joins = join.Joins()

    @default("transport")
    def _own_transport(self):
        # Only kernels that are known to speak it: many others know nothing but TCP. The directory of the sockets must
        # stay short, a path of a socket has 107 bytes at most.
        return "ipc" if self.kernel_name == OWN_KERNEL else "tcp"

    async def _async_wait(self, pollinterval=0.005):
        # Jupyter checks ten times a second whether the process has ended.
        await super()._async_wait(pollinterval=min(pollinterval, 0.005))

    async def _async_launch_kernel(self, kernel_cmd, **kw):
        if self.kernel_spec.language == "python":
            kw["env"] = self.environment.of_kernel(kw["env"], kernel_cmd[0])
        if kw.get("stderr") is None:
            # Debug lines of the gateway's log, too.
            self.errors = Errors(forward_to=2)
            kw["stderr"] = self.errors.writer
        largest = kw["env"].pop(ASKED, None)
        listener = self._listen() if largest and self.kernel_name == OWN_KERNEL else None
        if listener is not None:
            kw["env"][LISTENER], kw["pass_fds"] = str(listener.fileno()), (listener.fileno(),)
        try:
            await super()._async_launch_kernel(kernel_cmd, **kw)
            mark(self.provisioner.pid, kw["env"][MARK])
            self.room.take_back(self.provisioner.pid)
            if listener is not None and self.output_retention is not None:
                self.retention = Retention(self.output_retention, self._on_status)
                self.retention.connect(self.socket_path, self.session.key.decode(), largest)
        except OSError as error:
            if error.filename is None or refusal(error) is not None:
                raise
            raise Told(
                500,
                f'"{error.filename}" of the kernelspec "{self.kernel_name}" cannot be run: {error.strerror}; '
                "install it, or correct the kernelspec",
            ) from None
        finally:
            if self.errors is not None:
                self.errors.close_writer()
            if listener is not None:
                # The kernel has its copy.
                listener.close()

    def _listen(self):
        """Returns a listener for the client of the kernel; None if the system refuses it."""
        path = f"{os.path.splitext(self.connection_file)[0]}.sock"
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listener.bind(path)
            os.chmod(path, 0o600)
            listener.listen(128)
        except OSError as error:
            self.log.warning("Clients connect to the gateway: %s", error)
            listener.close()
            return None
        self.socket_path = path
        return listener

    @default("last_activity")
    def _first_activity(self):
        return datetime.now(timezone.utc)

    @observe("last_activity")
    def _note_activity(self, _):
        self.active_at = time.monotonic()

    def _on_status(self, state):
        # Jupyter knows the states of kernels whose messages it receives.
        self.execution_state, self.last_activity = state, datetime.now(timezone.utc)

    async def _async_interrupt_kernel(self):
        # The client would receive the interrupt as the result of its code.
        if not (self.shutting_down and self.socket_path):
            await super()._async_interrupt_kernel()

    async def _async_request_shutdown(self, restart=False):
        if self.retention is not None:
            self.retention.close()
        elif self.socket_path is None:
            await super()._async_request_shutdown(restart)
        elif listens(self.socket_path):
            # It has no client.
            await self._async_signal_kernel(signal.SIGKILL)
        # Otherwise the kernel ends after its client.

    async def _async_cleanup_resources(self, restart=False):
        if self.socket_path is not None and os.path.exists(self.socket_path):
            os.unlink(self.socket_path)
        await super()._async_cleanup_resources(restart)

    async def _async_post_start_kernel(self, **kw):
        try:
            await super()._async_post_start_kernel(**kw)
        except BaseException:
            # It is not registered yet.
            self.stop_restarter()
            await self._async_kill_kernel()
            await self._async_cleanup_resources()
            raise

    async def _async_signal_kernel(self, signum):
        pid = getattr(self.provisioner, "pid", None)
        if signum == signal.SIGINT and pid is not None and is_stopped(pid):
            interrupt(pid)
        else:
            await super()._async_signal_kernel(signum)

    def exit_code(self):
        """Returns the exit status of the process; None if it is not known."""
        process = getattr(self.provisioner, "process", None)
        return None if process is None else process.poll()


def at_once(method):
    """Runs a start or an end as Jupyter does, without the 10 ms that it waits in the end for its own tests."""
    run: Any = inspect.unwrap(method)

    @functools.wraps(run)
    async def run_at_once(self, *args, **kwargs):
        if self._attempted_start or not self._ready:
            self._ready = asyncio.get_running_loop().create_future()
        try:
            result = await run(self, *args, **kwargs)
        except Exception as error:
            self._ready.set_exception(error)
            # asyncio reports an exception that was not asked for.
            self.log.exception(self._ready.exception())
            raise
        if self.owns_kernel:
            self._ready.set_result(None)
        return result

    return run_at_once


def check_pauses():
    """Tells whether Jupyter waits after the start and the end of a kernel."""
    names = {"_attempted_start", "_ready", "_get_future", "set_result", "set_exception", "owns_kernel", "sleep"}
    stock: Any = KernelGatewayIOLoopKernelManager
    return all(
        method is not inspect.unwrap(method) and names.issubset(method.__code__.co_names)
        for method in (stock.start_kernel, stock.shutdown_kernel)
    )


def leave_out_pauses():
    Manager.start_kernel = at_once(KernelGatewayIOLoopKernelManager.start_kernel)
    Manager.shutdown_kernel = at_once(KernelGatewayIOLoopKernelManager.shutdown_kernel)


def listens(path):
    """Tells whether a process listens at a Unix socket. A kernel listens at its own until its client has connected."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except OSError as error:
            return error.errno == errno.EAGAIN
    return True


def end_of(exit_code, words):
    """Describes the end of a kernel, with the end of its standard error."""
    if exit_code is None or exit_code > 0 and words:
        return words or "It ended without a word"
    if exit_code >= 0:
        return f"It ended with exit code {exit_code} and without a word"
    try:
        name = signal.Signals(-exit_code).name
    except ValueError:
        name = f"signal {-exit_code}"
    return f"{words}\nIt was ended by {name}".strip()


class Errors:
    """Keeps the end of a kernel's standard error, which is not passed to the log of the gateway."""

    kept = 8192

    def __init__(self, forward_to=None):
        self._reader, self.writer = os.pipe()
        os.set_blocking(self._reader, False)
        self._text = b""
        self._forward_to = forward_to
        asyncio.get_running_loop().add_reader(self._reader, self._read)

    def close_writer(self):
        if self.writer is not None:
            os.close(self.writer)
            self.writer = None

    def tail(self):
        self._read()
        return self._text.decode(errors="replace").strip()

    def stop(self):
        """Reads the rest after the end of the listener."""
        self._read()
        if self._reader is not None:
            asyncio.get_running_loop().remove_reader(self._reader)
            os.close(self._reader)
            self._reader = None

    def _read(self):
        if self._reader is None:
            return
        try:
            data = os.read(self._reader, 65536)
        except BlockingIOError:
            return
        self._text = (self._text + data)[-self.kept :]
        if self._forward_to is not None:
            os.write(self._forward_to, data)
        if data == b"":
            asyncio.get_running_loop().remove_reader(self._reader)
            os.close(self._reader)
            self._reader = None
