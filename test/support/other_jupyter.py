"""Makes private parts of Jupyter others than those that our patches were made for; they do what they did.

Python imports this at its start as `sitecustomize`, and the other one that may exist is not needed here.
"""

import functools

import ipykernel.iostream
import ipykernel.ipkernel
from jupyter_server.services.kernels.connection import channels
from jupyter_server.services.kernels.handlers import MainKernelHandler
from kernel_gateway.gatewayapp import KernelGatewayApp
from kernel_gateway.services.kernels.manager import KernelGatewayIOLoopKernelManager

PARTS = (
    (channels.ZMQChannelsWebsocketConnection, "nudge"),
    (channels.ZMQChannelsWebsocketConnection, "_register_session"),
    (channels.ZMQChannelsWebsocketConnection, "handle_outgoing_message"),
    (MainKernelHandler, "post"),
    (KernelGatewayApp, "init_http_server"),
    (KernelGatewayIOLoopKernelManager, "_async_wait"),
    (ipykernel.iostream.OutStream, "flush"),
    (ipykernel.ipkernel.IPythonKernel, "post_handler_hook"),
)


def other(function):
    """Does what the function does, and looks different."""

    @functools.wraps(function)
    def call(*everything, **named):
        return function(*everything, **named)

    del call.__wrapped__
    return call


for owner, name in PARTS:
    setattr(owner, name, other(getattr(owner, name)))
