"""The manager of the gateway's kernels."""

import asyncio
import functools
import math
import os
import time
from contextvars import ContextVar
from typing import Any

from kernel_gateway.services.kernels.manager import SeedingMappingKernelManager
from tornado.web import HTTPError

from effect_jupyter.gateway import join
from effect_jupyter.gateway.leases import LEASE, Leases
from effect_jupyter.gateway.limits import Told
from effect_jupyter.gateway.manager import ASKED, OWN_KERNEL, Manager, end_of, listens
from effect_jupyter.gateway.processes import MARK, kill_processes_of
from effect_jupyter.gateway.retention import Ended
from effect_jupyter.gateway.zygote_client import Zygote
from effect_jupyter.sandbox.processes import is_stopped

# The environment of the kernel that the current request starts.
requested_env: ContextVar[dict[str, str] | None] = ContextVar("requested_env", default=None)

# Of requests that restrict a kernel: its rules and the secret of the program that started the gateway, or what a
# program on another machine asks for.
RULES, PERMISSIONS = "EFFECT_JUPYTER_SANDBOX", "EFFECT_JUPYTER_PERMISSIONS"


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
        """Returns the model of a kernel, with "stopped", which the kernel cannot tell itself.

        A kernel that died has one as long as its output is kept.
        """
        if self.ended.get(kernel_id) is not None:
            return {"id": kernel_id, "name": OWN_KERNEL, "execution_state": "dead", "attachable": True}
        model = super().kernel_model(kernel_id)
        pid, kernel = self._pid_of(kernel_id), self._kernels[kernel_id]
        model["stopped"] = pid is not None and is_stopped(pid)
        if getattr(kernel, "socket_path", None) is not None:
            if kernel.retention is not None:
                model["attachable"] = True
                model["connections"] = kernel.retention.connections()
                if kernel.retention.is_over and not kernel.shutting_down:
                    # The end of the process is known somewhat later.
                    model["execution_state"] = "dead"
                    model["attachable"] = kernel.retention.is_referenced
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

    def serves_itself(self, kernel_id):
        """Tells whether a kernel serves its client itself, so that the gateway cannot: it has no sockets of ZeroMQ."""
        kernel = self.get_kernel(kernel_id)
        path = getattr(kernel, "socket_path", None)
        return path is not None and (listens(path) or not listens(f"{kernel.ip}-{kernel.shell_port}"))

    def inactive_for(self, kernel_id):
        """Returns the seconds since the last message of a kernel; infinite if they are not known."""
        active_at = getattr(self.get_kernel(kernel_id), "active_at", None)
        return math.inf if active_at is None else time.monotonic() - active_at

    def serve_by_gateway(self, kernel_id):
        """Connects the gateway to a kernel that refused its client."""
        kernel = self.get_kernel(kernel_id)
        if getattr(kernel, "socket_path", None) is not None:
            os.unlink(kernel.socket_path)
            kernel.socket_path = kernel.retention = None
            self.start_watching_activity(kernel_id)

    def retention_of(self, kernel_id):
        """Returns the connection of the gateway to a kernel, also of one that died and whose output is kept."""
        return self.ended.get(kernel_id) or getattr(self._kernels.get(kernel_id), "retention", None)

    def _pid_of(self, kernel_id):
        return getattr(self._kernels[kernel_id].provisioner, "pid", None)

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self._last_words = {}
        self.ended = Ended(Manager.output_retention or 0, self.most_last_words)

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
        if manager.retention is not None and manager.retention.is_referenced:
            self.ended.add(kernel_id, manager.retention)
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
