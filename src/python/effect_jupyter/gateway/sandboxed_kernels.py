"""The manager of the gateway's kernels if each is in a sandbox."""

import asyncio
import os
import re
import socket
import time
from collections.abc import Callable
from typing import Any

from tornado.web import HTTPError

from effect_jupyter.gateway.kernels import PERMISSIONS, RULES, Kernels, requested_env
from effect_jupyter.gateway.limits import Told
from effect_jupyter.gateway.manager import OWN_KERNEL, Errors
from effect_jupyter.sandbox.host import Sandbox
from effect_jupyter.sandbox.processes import Watch, find_leader, snapshot

# Variables that make the loader, a shell, Node or Python run other code or write files. They are set in the sandbox
# only.
INSIDE_ONLY = re.compile(
    "LD_.*|GLIBC_TUNABLES|GCONV_PATH|MALLOC_.*|BASH.*|SHELLOPTS|ENV|PS4|SSH2?_CLIENT|NODE_.*|PYTHON.*", re.DOTALL
)

# In the order in which the kernel receives their sockets.
CHANNELS = ("shell_port", "iopub_port", "stdin_port", "control_port", "hb_port")


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
        ours, theirs = socket.socketpair()
        errors = Errors()
        try:
            # The launcher loads at the same time.
            preparing = self.sandbox.prepare(kernel_id, rules, inside)
            streams = {"stdin": theirs.fileno(), "stderr": errors.writer}
            await super().start_kernel(*args, env=env, kernel_id=kernel_id, **streams, **kwargs)
            self.get_kernel(kernel_id).errors = errors
            theirs.close()
            errors.close_writer()
            command = await self._with_timeout(preparing, "The rules were not ready")
            kernel = self.get_kernel(kernel_id)
            sockets = [f"{kernel.ip}-{getattr(kernel, channel)}" for channel in CHANNELS]
            await self._send_orders(ours, self.sandbox.orders(kernel_id, command, rules, inside, sockets))
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

    async def _send_orders(self, launcher, orders):
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
