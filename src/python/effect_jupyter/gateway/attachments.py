"""The resources by which programs attach to kernels that the gateway is the client of."""

import asyncio
from typing import Any

from kernel_gateway.mixins import JSONErrorsMixin, TokenAuthorizationMixin
from tornado.web import HTTPError, RequestHandler, stream_request_body
from tornado.websocket import WebSocketHandler

from effect_jupyter.gateway.retention import refuse
from effect_jupyter.kernel.connection import PROTOCOL
from effect_jupyter.kernel.websocket import LARGEST

KERNEL = r"/api/kernels/(?P<kernel_id>\w+-\w+-\w+-\w+-\w+)/attachment"


async def retention_of(handler, kernel_id):
    """Returns the connection of a kernel that has accepted the gateway, also of one whose output is kept."""
    kernels = handler.settings["kernel_manager"]
    retention = kernels.retention_of(kernel_id)
    if retention is None:
        kernels._check_kernel_id(kernel_id)
    if retention is None or not await retention.opened():
        raise HTTPError(404, "The gateway has no connection to the kernel")
    return retention


class Socket(TokenAuthorizationMixin, WebSocketHandler):
    """A WebSocket of a program that is attached: `shell` or `control`, or `replay` for earlier output."""

    async def get(self, *args, **kwargs):
        self.holder = self.get_query_argument("holder")
        self.retention = await retention_of(self, kwargs["kernel_id"])
        self.name = kwargs["name"]
        self.task: asyncio.Future | None = None
        if self.name == "replay":
            self.retention.check(self.holder)
        else:
            self.retention.take(self.holder)
        await super().get(*args, **kwargs)

    def select_subprotocol(self, subprotocols):
        return PROTOCOL if PROTOCOL in subprotocols else None

    def open(self, *args, **kwargs):
        self.set_nodelay(True)
        if self.name == "replay" and self.retention.is_held_by(self.holder):
            start, end = (self.get_query_argument(name, None) for name in ("from", "to"))
            replay = self.retention.replay(self, int(start or 0), None if end is None else int(end))
            self.task = asyncio.ensure_future(replay)
        elif self.name == "replay" or not self.retention.join(self.name, self):
            refuse(self)
        elif self.name == "shell":
            self.task = asyncio.ensure_future(self.retention.follow(self))

    async def on_message(self, message):
        if isinstance(message, bytes) and self.retention.knows(self.name, self):
            await self.retention.send(self.name, message)

    def on_close(self):
        if self.task is not None:
            self.task.cancel()
        self.retention.leave(self.name, self)
        self.settings["kernel_manager"].ended.trim()


@stream_request_body
class Requests(TokenAuthorizationMixin, JSONErrorsMixin, RequestHandler):
    """Sends a request to the main shell, and answers when the kernel will get it whatever becomes of the program."""

    def prepare(self):
        super().prepare()
        self.frame = bytearray()
        if not self._finished:
            # Code and its buffers, as in a frame of a WebSocket.
            connection: Any = self.request.connection
            connection.set_max_body_size(LARGEST)

    def data_received(self, chunk):
        self.frame += chunk

    async def post(self, kernel_id):
        retention = await retention_of(self, kernel_id)
        retention.check(self.get_query_argument("holder"))
        self.finish({"position": await retention.start(bytes(self.frame))})


class Kept(TokenAuthorizationMixin, JSONErrorsMixin, RequestHandler):
    """Has the kernel outlive its program, or deletes it and its output, unless another program is attached."""

    def put(self, kernel_id):
        kernels = self._kernels_of(kernel_id)
        kernels._check_kernel_id(kernel_id)
        kernels.leases.remove(kernel_id)
        self.set_status(204)

    async def delete(self, kernel_id):
        kernels = self._kernels_of(kernel_id, may_be_free=True)
        if not kernels.ended.remove(kernel_id):
            await kernels.shutdown_kernel(kernel_id)
        self.set_status(204)

    def _kernels_of(self, kernel_id, *, may_be_free=False):
        kernels = self.settings["kernel_manager"]
        retention = kernels.retention_of(kernel_id)
        if retention is None:
            kernels._check_kernel_id(kernel_id)
        # A program whose connection failed deletes the kernel that it started.
        elif not (may_be_free and retention.is_held_by(None)):
            retention.check(self.get_query_argument("holder"))
        return kernels


handlers = [
    (rf"{KERNEL}/(?P<name>shell|control|replay)", Socket),
    (rf"{KERNEL}/requests", Requests),
    (rf"{KERNEL}/kept", Kept),
]
