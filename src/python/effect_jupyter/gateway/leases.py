"""The kernels of programs that share a gateway, and whether it is used; `shared.py` has the programs' connections."""

import asyncio
import json
import os
import time
from collections.abc import Callable
from typing import Any

from tornado.ioloop import IOLoop

# The variable of a request that says which lease its kernel ends with; without it, the kernel stays until it is deleted.
LEASE = "EFFECT_JUPYTER_LEASE"


class Leases:
    """Knows the lease of each kernel, and when the gateway was used last."""

    def __init__(self, send: Callable[[dict[str, Any]], None]):
        self._send = send
        self._messages = int(os.environ.pop("EFFECT_JUPYTER_MESSAGES"))
        self._lease_of: dict[str, int] = {}
        self._ended: set[int] = set()
        self._deletions: set[asyncio.Task[None]] = set()
        self._used_at = time.monotonic()
        self._received = b""
        self._kernels: Any = None

    def listen(self, kernels: Any, web_app: Any) -> None:
        """Receives the messages of the supervisor, and observes requests."""
        self._kernels = kernels
        stock_log = web_app.log_request

        def log_request(handler: Any) -> None:
            self.use()
            stock_log(handler)

        web_app.log_request = log_request
        IOLoop.current().add_handler(self._messages, lambda *_: self._read(), IOLoop.READ)

    def use(self) -> None:
        """Notes that the gateway is used now."""
        self._used_at = time.monotonic()

    def add(self, kernel_id: str, lease: "str | None") -> None:
        """Lets a kernel that starts end with the lease, if there is one."""
        if lease is not None:
            self._lease_of[kernel_id] = int(lease)

    def remove(self, kernel_id: str) -> None:
        """Forgets the lease of a kernel that has ended, or is detached from its program."""
        self._lease_of.pop(kernel_id, None)

    def has_ended(self, kernel_id: str) -> bool:
        """Tells whether the lease of a kernel ended while the kernel was starting."""
        return self._lease_of.get(kernel_id) in self._ended

    def send(self, message: dict[str, Any]) -> None:
        """Sends a message to the program that has the kernel in it; to all programs if that is not known."""
        kernel_id = message.get("kernel")
        self._send({**message, "lease": self._lease_of.get(kernel_id)} if kernel_id is not None else message)

    def _read(self) -> None:
        data = os.read(self._messages, 65536)
        if not data:
            # The supervisor has ended, and this process is killed.
            IOLoop.current().remove_handler(self._messages)
        *lines, self._received = (self._received + data).split(b"\n")
        for line in lines:
            message = json.loads(line)
            if "leaseEnded" in message:
                self._end(message["leaseEnded"])
            else:
                self._send({"unusedFor": self._unused_for()})

    def _end(self, lease: int) -> None:
        self._ended.add(lease)
        for kernel_id in [kernel_id for kernel_id, its_lease in self._lease_of.items() if its_lease == lease]:
            # One that is starting is deleted when it has started.
            if kernel_id in self._kernels:
                task = asyncio.ensure_future(self._delete(kernel_id))
                self._deletions.add(task)
                task.add_done_callback(self._deletions.discard)

    async def _delete(self, kernel_id: str) -> None:
        try:
            await self._kernels.shutdown_kernel(kernel_id, now=True)
        except Exception as error:
            self._kernels.log.warning("Kernel %s of a program that ended was not deleted: %s", kernel_id, error)

    def _unused_for(self) -> "float | None":
        """Returns the seconds since the last use; None while a kernel runs code or has a connection."""
        since = time.monotonic() - self._used_at
        for model in self._kernels.list_kernels():
            if model["connections"] > 0 or model["execution_state"] == "busy":
                return None
            # Not its "last_activity", which is of a clock that may be set.
            since = min(since, self._kernels.inactive_for(model["id"]))
        return max(0.0, since)
