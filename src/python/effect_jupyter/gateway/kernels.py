"""The managers of the gateway's kernels, with and without a sandbox."""

import asyncio
import errno
import functools
import os
import re
import signal
import socket
import time
from collections.abc import Callable
from contextvars import ContextVar
from datetime import datetime, timezone
from typing import Any

from kernel_gateway.services.kernels.manager import KernelGatewayIOLoopKernelManager, SeedingMappingKernelManager
from tornado.web import HTTPError
from traitlets import default

from effect_jupyter.gateway import join
from effect_jupyter.gateway.environment import Environment
from effect_jupyter.gateway.leases import LEASE, Leases
from effect_jupyter.gateway.limits import Room, Told, refusal
from effect_jupyter.gateway.processes import MARK, kill_processes_of, mark
from effect_jupyter.gateway.retention import Retention
from effect_jupyter.gateway.zygote_client import Zygote
from effect_jupyter.sandbox.host import Sandbox
from effect_jupyter.sandbox.processes import Watch, find_leader, interrupt, is_stopped, snapshot

# The environment of the kernel that the current request starts.
requested_env: ContextVar[dict[str, str] | None] = ContextVar("requested_env", default=None)

# The name of the gateway's kernelspec, which precedes one of the user with this name.
OWN_KERNEL = "python3"
# Of requests that restrict a kernel: its rules and the secret of the program that started the gateway, or what a
# program on another machine asks for.
RULES, PERMISSIONS = "EFFECT_JUPYTER_SANDBOX", "EFFECT_JUPYTER_PERMISSIONS"
# A request with this variable asks for a kernel that its client connects to directly; its value is the maximum of the
# bytes of a message.
ASKED, LISTENER = "EFFECT_JUPYTER_OWN_CONNECTION", "EFFECT_JUPYTER_LISTENER"
# Variables that make the loader, a shell, Node or Python run other code or write files. They are set in the sandbox
# only.
INSIDE_ONLY = re.compile(
    "LD_.*|GLIBC_TUNABLES|GCONV_PATH|MALLOC_.*|BASH.*|SHELLOPTS|ENV|PS4|SSH2?_CLIENT|NODE_.*|PYTHON.*", re.DOTALL
)


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
        elif has_no_client(self.socket_path):
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


def has_no_client(path):
    """Tells whether the kernel of a socket still listens, which it does until its client has connected."""
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


class Kernels(SeedingMappingKernelManager):
    """Marks all processes of a kernel, including those that leave its process group, so that none outlives it."""

    zygote: Zygote | None = None  # the process that kernels are forked from
    leases: Leases | None = None  # those of the programs that share the gateway
    # True if programs on other machines are clients.
    is_served = False
    get_kernel: Any
    loading_bound = 10.0
    most_last_words = 100

    def kernel_model(self, kernel_id):
        """Returns the model of a kernel, with "stopped", which the kernel cannot tell itself."""
        model = super().kernel_model(kernel_id)
        pid, kernel = self._pid_of(kernel_id), self._kernels[kernel_id]
        model["stopped"] = pid is not None and is_stopped(pid)
        if getattr(kernel, "socket_path", None) is not None:
            if kernel.retention is not None:
                model["attachable"] = True
                model["connections"] = kernel.retention.connections()
            elif self.is_served:
                model["joins"] = kernel.joins.model()
            else:
                model["connection"] = {"path": kernel.socket_path, "token": kernel.session.key.decode()}
            model["ending"] = kernel.shutting_down
        return model

    def served(self, kernel_id):
        """Returns the manager of a kernel whose client is on another machine; None if it is no such kernel."""
        kernel = self._kernels.get(kernel_id)
        return kernel if self.is_served and getattr(kernel, "socket_path", None) is not None else None

    def start_watching_activity(self, kernel_id):
        # A kernel with a socket sends its states to its client only.
        if getattr(self._kernels[kernel_id], "socket_path", None) is None:
            super().start_watching_activity(kernel_id)

    def serve_by_gateway(self, kernel_id):
        """Connects the gateway to a kernel that refused its client."""
        kernel = self.get_kernel(kernel_id)
        if getattr(kernel, "socket_path", None) is not None:
            os.unlink(kernel.socket_path)
            kernel.socket_path = kernel.retention = None
            self.start_watching_activity(kernel_id)

    def retention_of(self, kernel_id):
        return getattr(self._kernels.get(kernel_id), "retention", None)

    def _pid_of(self, kernel_id):
        return getattr(self._kernels[kernel_id].provisioner, "pid", None)

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self._last_words = {}

    def ensure_root_dir(self):
        """Creates the working directory again if code has deleted it."""
        if os.path.isdir(self.root_dir):
            return
        try:
            os.makedirs(self.root_dir)
        except OSError as error:
            why = f'The working directory "{self.root_dir}" is gone and cannot be made again: {error.strerror}'
            raise HTTPError(500, f"{why}; make room for it, or start a gateway with another one") from None
        self.log.warning('The working directory "%s" was deleted; made an empty one', self.root_dir)

    async def start_kernel(self, *args, env=None, kernel_id=None, **kwargs):
        self.ensure_root_dir()
        # The start waits for the zygote, which is faster than a start without it.
        deadline = time.monotonic() + self.loading_bound
        while self.zygote is not None and self.zygote.is_loading():
            if time.monotonic() > deadline:
                self.zygote.give_up(f"Nothing was loaded within {self.loading_bound:g} s")
            await asyncio.sleep(0.002)
        env = requested_env.get() if env is None else env
        # In the workspace, which is not the working directory of the gateway.
        kwargs["path"] = kwargs.get("path") or ""
        kernel_id = kernel_id or self.new_kernel_id()
        env = {**(os.environ if env is None else env), MARK: kernel_id}
        env.pop(RULES, None)
        if env.pop(PERMISSIONS, None) is not None:
            raise Told(400, "The gateway has no sandbox, and cannot restrict a kernel; start it with one")
        if not Manager.is_used:
            env.pop(ASKED, None)
        lease = env.pop(LEASE, None)
        try:
            if self.leases is not None:
                self.leases.add(kernel_id, lease)
            await super().start_kernel(*args, env=env, kernel_id=kernel_id, **kwargs)
            if self.leases is not None and self.leases.has_ended(kernel_id):
                raise HTTPError(410, "The program that asked for the kernel has ended")
        except BaseException:
            if self.leases is not None:
                self.leases.remove(kernel_id)
            self._pending_kernels.pop(kernel_id, None)
            if kernel_id in self:
                await self.shutdown_kernel(kernel_id, now=True)
            raise
        manager = self.get_kernel(kernel_id)
        if isinstance(manager, Manager):
            last_words = functools.partial(self._keep_last_words, kernel_id, manager)
            self.add_restart_callback(kernel_id, last_words, "dead")
        if self.served(kernel_id) is not None:
            join.expect(self, kernel_id)
        return kernel_id

    def _keep_last_words(self, kernel_id, manager):
        words = "" if manager.errors is None else manager.errors.tail()
        is_cut = manager.joins.ended == "client"
        self.keep_last_words(kernel_id, join.CUT if is_cut else end_of(manager.exit_code(), words))

    def keep_last_words(self, kernel_id, words):
        """Keeps the reason of the end of a kernel for its client."""
        self._last_words[kernel_id] = words
        if len(self._last_words) > self.most_last_words:
            del self._last_words[next(iter(self._last_words))]
        self.log.warning("Kernel %s ended by itself: %s", kernel_id, words)

    def _check_kernel_id(self, kernel_id):
        words = self._last_words.get(kernel_id)
        if words and kernel_id not in self:
            # A client that waits for the kernel gets the reason.
            raise Told(404, words)
        super()._check_kernel_id(kernel_id)

    def notify_disconnect(self, kernel_id):
        super().notify_disconnect(kernel_id)
        if self.leases is not None:
            self.leases.use()

    def remove_kernel(self, kernel_id):
        if self.leases is not None:
            self.leases.remove(kernel_id)
        errors = getattr(self._kernels.get(kernel_id), "errors", None)
        if errors is not None:
            errors.stop()
        try:
            return super().remove_kernel(kernel_id)
        finally:
            kill_processes_of(kernel_id)


class SandboxedKernels(Kernels):
    """Manages kernels of which each is in its own sandbox."""

    # Set before the first kernel: the sandbox, and a function that reports violations to the program.
    sandbox: Sandbox
    send: Callable[[dict[str, Any]], None]
    start_bound = 20.0

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self._ending = {}
        self._watches = {}
        self._leaders = {}
        self._watching = None

    async def start_kernel(self, *args, env=None, kernel_id=None, **kwargs):
        if kwargs.get("kernel_name") not in (None, "", OWN_KERNEL):
            raise HTTPError(400, f'There is no sandboxed kernel "{kwargs["kernel_name"]}"; leave the name out')
        self.ensure_root_dir()
        # Not in the folder of the request: a kernel cannot use folders outside of the workspace.
        kwargs["path"] = ""
        env = dict(env or requested_env.get() or {})
        rules = await self._rules_of(env)
        inside = {name: env.pop(name) for name in list(env) if INSIDE_ONLY.fullmatch(name)}
        kernel_id = kernel_id or self.new_kernel_id()
        ordering = None
        ours, theirs = socket.socketpair()
        errors = Errors()
        try:
            preparing = self.sandbox.prepare(kernel_id, rules, inside)
            # The launcher loads at the same time.
            ordering = asyncio.ensure_future(self._order(kernel_id, preparing, rules, inside, ours))
            streams = {"stdin": theirs.fileno(), "stderr": errors.writer}
            await super().start_kernel(*args, env=env, kernel_id=kernel_id, **streams, **kwargs)
            self.get_kernel(kernel_id).errors = errors
            theirs.close()
            errors.close_writer()
            await ordering
            await self._wait_until_inside(kernel_id, errors)
            self._watch(kernel_id, rules["limits"])
            return kernel_id
        except BaseException as error:
            theirs.close()
            errors.close_writer()
            try:
                if kernel_id in self:
                    await self.shutdown_kernel(kernel_id, now=True)
            finally:
                await self._with_timeout(self.sandbox.end(kernel_id), "Its folder was not removed")
            if isinstance(error, RuntimeError):
                raise HTTPError(500, f"The sandbox of the kernel could not be started: {error}") from None
            raise
        finally:
            if ordering is not None:
                # The launcher may still wait for the descriptor.
                ordering.cancel()
                await asyncio.wait([ordering])
            ours.close()

    async def _rules_of(self, env):
        """Takes the rules of a request out of its environment; by default those of the gateway."""
        given, permissions = env.pop(RULES, None), env.pop(PERMISSIONS, None)
        if permissions is None:
            try:
                return self.sandbox.rules_of(given)
            except (ValueError, TypeError, KeyError):
                raise HTTPError(403, f"{RULES} is not for requests to set") from None
        try:
            narrowing = self.sandbox.narrow(permissions)
            return await self._with_timeout(narrowing, "The permissions were not resolved")
        except (ValueError, RuntimeError) as error:
            raise Told(400, str(error)) from None

    async def _order(self, kernel_id, preparing, rules, inside, launcher):
        """Sends the launcher its orders when they are complete."""
        command = await self._with_timeout(preparing, "The rules were not ready")
        orders = self.sandbox.orders(kernel_id, command, rules, inside)
        launcher.setblocking(False)
        try:
            await asyncio.wait_for(asyncio.get_running_loop().sock_sendall(launcher, orders), self.start_bound)
        except asyncio.TimeoutError:
            raise RuntimeError(f"Its launcher did not listen within {self.start_bound:g} s") from None
        except OSError:
            pass  # it ended, with the reason on standard error
        launcher.close()

    async def _with_timeout(self, future, complaint):
        """Waits for a future of another thread. Cancelling the wait does not cancel the future."""
        try:
            return await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(future)), self.start_bound)
        except asyncio.TimeoutError:
            raise RuntimeError(f"{complaint} within {self.start_bound:g} s") from None

    async def _wait_until_inside(self, kernel_id, errors):
        """Watches a sandbox that starts: Jupyter would notice after a minute that it ended at once."""
        deadline = time.monotonic() + self.start_bound
        while (inner_pid := self._started(kernel_id)) is None:
            if kernel_id not in self or not await self.get_kernel(kernel_id).is_alive():
                raise RuntimeError(errors.tail() or "It ended without a word")
            if time.monotonic() > deadline:
                raise RuntimeError(f"It was not there within {self.start_bound:g} s\n{errors.tail()}")
            await asyncio.sleep(0.002)
        if os.path.isdir("/proc/self"):
            self._leaders[kernel_id] = find_leader(self.get_kernel(kernel_id).provisioner.pid, inner_pid)

    def _started(self, kernel_id):
        try:
            return self.sandbox.started(kernel_id)
        except (OSError, ValueError) as error:
            raise RuntimeError(f"It did not tell its number: {error}") from None

    async def interrupt_kernel(self, kernel_id, *args, **kwargs):
        leader = self._leaders.get(kernel_id)
        if leader is None:
            await super().interrupt_kernel(kernel_id, *args, **kwargs)  # pyright: ignore[reportGeneralTypeIssues]
        else:
            leader.interrupt()

    def _pid_of(self, kernel_id):
        leader = self._leaders.get(kernel_id)
        return super()._pid_of(kernel_id) if leader is None else leader.pid

    def _watch(self, kernel_id, limits):
        if os.path.isdir("/proc/self") and not {"memory", "cpuTime", "processes"}.isdisjoint(limits):
            self._watches[kernel_id] = Watch(limits)
        if self._watches and self._watching is None:
            self._watching = asyncio.create_task(self._watch_limits())

    async def _watch_limits(self):
        while self._watches:
            children = snapshot()
            for kernel_id, watch in list(self._watches.items()):
                try:
                    await self._look(kernel_id, watch, children)
                except Exception:
                    # An error of a kernel that is ending must not stop the limits of the others.
                    self.log.exception("The limits of kernel %s could not be checked", kernel_id)
            await asyncio.sleep(0.25)
        self._watching = None

    async def _look(self, kernel_id, watch, children):
        if kernel_id not in self:
            del self._watches[kernel_id]
            return
        provisioner = self.get_kernel(kernel_id).provisioner
        exceeded = None if provisioner is None else watch.exceeded(children, provisioner.pid)
        if provisioner is not None and exceeded is not None:
            del self._watches[kernel_id]
            self.send({"violation": f"deny {exceeded}", "kernel": kernel_id})
            await provisioner.kill()

    async def restart_kernel(self, kernel_id, *args, **kwargs):
        raise HTTPError(405, "A sandboxed kernel is not restarted; delete it and start another")

    def remove_kernel(self, kernel_id):
        self._leaders.pop(kernel_id, None)
        try:
            return super().remove_kernel(kernel_id)
        finally:
            ending = self._ending[kernel_id] = self.sandbox.end(kernel_id)
            ending.add_done_callback(lambda _: self._ending.pop(kernel_id, None))

    async def shutdown_kernel(self, kernel_id, *args, **kwargs):
        await super().shutdown_kernel(kernel_id, *args, **kwargs)
        # After the deletion of a kernel its placeholders in the workspace must be gone.
        ending = self._ending.get(kernel_id)
        if ending is not None:
            await self._with_timeout(ending, "The folder of the kernel was not removed")


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
