"""Tries out the patches of the gateway one by one: what they replace as it is, and as it is not.

Usage: gateway_patches.py FOLDER, which is that of the Python files. Prints a line for each check that holds.
"""

import asyncio
import contextlib
import gc
import json
import logging
import sys
from types import SimpleNamespace
from unittest import mock

sys.path.append(sys.argv[1])

from effect_jupyter.gateway import app as gateway_app
from effect_jupyter.gateway.manager import at_once
from effect_jupyter.kernel import cells, messages
from effect_jupyter.kernel.application import KernelApp, PythonKernel, check_kernel
from ipykernel.iostream import IOPubThread, OutStream
from ipykernel.ipkernel import IPythonKernel
from ipykernel.kernelapp import IPKernelApp
from ipykernel.kernelbase import Kernel
from jupyter_client.session import Session
from jupyter_server.services.kernels.connection import base
from jupyter_server.services.kernels.connection.channels import ZMQChannelsWebsocketConnection
from jupyter_server.services.kernels.handlers import MainKernelHandler
from kernel_gateway.gatewayapp import KernelGatewayApp
from kernel_gateway.services.kernels.manager import KernelGatewayIOLoopKernelManager
from tornado.websocket import WebSocketProtocol13


def anything(*everything, **named):
    raise AssertionError("This must not be called")


def checks():
    """Each check of a patch, and the parts that it must notice to be others."""
    connection = ZMQChannelsWebsocketConnection
    messages = ("handle_outgoing_message", "handle_incoming_message", "create_stream", "connect")
    yield gateway_app.check_connections, [(connection, name) for name in messages]
    yield gateway_app.check_sessions, ((connection, "_register_session"), (WebSocketProtocol13, "_abort"))
    yield gateway_app.check_environments, ((MainKernelHandler, "post"),)
    yield gateway_app.check_server, ((KernelGatewayApp, "init_http_server"),)
    manager = KernelGatewayIOLoopKernelManager
    yield gateway_app.check_managers, ((manager, "_async_wait"), (manager, "_async_launch_kernel"))
    yield gateway_app.check_pauses, ((manager, "start_kernel"), (manager, "shutdown_kernel"))
    app = [(IPKernelApp, name) for name in ("init_sockets", "init_heartbeat", "init_kernel", "init_io", "close")]
    kernel = [(Kernel, name) for name in ("start", "dispatch_shell", "process_control", "execute_request")]
    yield check_kernel, [*app, *kernel, (Kernel, "_input_request"), (IPythonKernel, "do_execute"), (Session, "send")]


def patches_are_left_out_where_they_do_not_fit():
    for check, parts in checks():
        assert gateway_app.is_compatible(check.__name__, check), check
        for owner, name in parts:
            with mock.patch.object(owner, name, anything):
                assert not gateway_app.is_compatible(check.__name__, check), (check, name)


def all_or_nothing_is_put_in_its_place():
    post = gateway_app.MainKernelHandler.post
    with mock.patch.object(gateway_app, "is_compatible", lambda *_: False):
        gateway_app.patch()
    connection = gateway_app.Connection

    def flags():
        pauses = gateway_app.Manager.start_kernel is KernelGatewayIOLoopKernelManager.start_kernel
        return (connection.repeats, connection.replaces, gateway_app.Gateway.listens, not pauses)

    assert flags() == (False,) * 4 and gateway_app.MainKernelHandler.post is post
    gateway_app.patch()
    assert flags() == (True,) * 4 and gateway_app.MainKernelHandler.post is not post


def a_start_that_fails_is_reported_once():
    reports = []

    async def refuse(self):
        raise OSError("refused")

    async def start():
        asyncio.get_running_loop().set_exception_handler(lambda _, context: reports.append(context))
        manager = SimpleNamespace(_attempted_start=False, _ready=None, log=logging.getLogger())
        with contextlib.suppress(OSError):
            await at_once(refuse)(manager)
        assert manager._ready.done()
        del manager
        gc.collect()

    asyncio.run(start())
    assert reports == [], reports


def kernels_are_left_as_they_are_where_they_do_not_fit():
    for part, owner in (("flush", OutStream), ("_flush", OutStream), ("schedule", IOPubThread)):
        with mock.patch.object(owner, part, anything):
            assert KernelApp().outstream_class == "ipykernel.iostream.OutStream", part
    assert KernelApp().outstream_class == "effect_jupyter.kernel.streams.Stream"
    with mock.patch.object(IPythonKernel, "post_handler_hook", anything):
        assert KernelApp().kernel_class is IPythonKernel
    with mock.patch.object(IPythonKernel, "_execute_sleep", 0.5):
        assert KernelApp().kernel_class is IPythonKernel
    assert KernelApp().kernel_class is PythonKernel


def cells_are_left_to_ipython_where_it_does_not_fit():
    """Each part for itself: the others are in place all the same."""
    places = [place for place, *_ in cells.parts()]
    for odd in places:
        with contextlib.ExitStack() as stack:
            before = {}
            for owner, name in places:
                stock = getattr(owner, name)
                before[owner, name] = anything if (owner, name) == odd else getattr(stock, "__wrapped__", stock)
                stack.enter_context(mock.patch.object(owner, name, before[owner, name]))
            cells.install()
            left = [place for place in places if getattr(*place) is before[place]]
            assert left == [odd], (odd, left)


def frames_are_those_of_jupyter():
    for size in (0, 1, 50, 125, 126, 127, 65000, 65535, 65536, 70000, 1 << 20):
        for count in (4, 5, 9):
            parts = [b'{"msg_id":"1","msg_type":"x"}', *([b"{}"] * 3), *([bytes(size)] * (count - 4))]
            message = base.serialize_msg_to_ws_v1(parts, "iopub")
            frame = []
            stream = SimpleNamespace(write=frame.append)
            socket = SimpleNamespace(FIN=0x80, mask_outgoing=False, _wire_bytes_out=0, stream=stream)
            WebSocketProtocol13._write_frame(socket, True, 2, message)
            assert b"".join(messages.encoded("iopub", parts)) == b"".join(frame)
            channel, decoded = messages.decoded(message)
            assert channel == "iopub" and [bytes(part) for part in decoded["buffers"]] == parts[4:]
    for garbage in (b"", b"abc", b"\xff" * 8, b"\xff" * 80, b"\0" * 80):
        try:
            messages.decoded(garbage)
        except ValueError:
            continue
        raise AssertionError(garbage)


def messages_are_those_of_jupyter():
    """What a kernel sends by itself has the parts that `Session.send` gives it."""
    session = Session(key=b"key")
    frames, stock = [], []
    connected = SimpleNamespace(put=frames.append, write=frames.append, bound=1 << 20)
    sender = messages.Sender(session, lambda: None)
    sender.connect(connected, connected)
    socket = SimpleNamespace(send_multipart=lambda parts, **_: stock.append(parts[2:]))
    parent = session.msg("execute_request")
    for kind, content, metadata, buffers in (
        ("stream", {"name": "stdout", "text": "é\n"}, None, None),
        ("status", {"execution_state": "busy"}, None, None),
        ("execute_reply", {"status": "ok"}, {"started": "now"}, [b"123", memoryview(b"456")]),
        ("display_data", {}, {}, []),
    ):
        sender.send(messages.Channel("iopub", sender), kind, content, parent, metadata=metadata, buffers=buffers)
        Session.send(session, socket, kind, content, parent, metadata=metadata, buffers=buffers)
        frame = b"".join(map(bytes, frames.pop()))
        channel, ours = messages.decoded(frame[2 if frame[1] < 126 else 4 :])
        header, *others = [json.loads(part) for part in stock[-1][:4]]
        assert ours["header"].keys() == header.keys() and channel == "iopub"
        for name in ("msg_type", "username", "session", "version"):
            assert ours["header"][name] == header[name], name
        assert [ours["parent_header"], ours["metadata"], ours["content"]] == others
        assert [bytes(part) for part in ours["buffers"]] == [bytes(part) for part in stock[-1][4:]]


def run():
    logging.disable(logging.CRITICAL)
    for check in (
        patches_are_left_out_where_they_do_not_fit,
        all_or_nothing_is_put_in_its_place,
        a_start_that_fails_is_reported_once,
        kernels_are_left_as_they_are_where_they_do_not_fit,
        cells_are_left_to_ipython_where_it_does_not_fit,
        frames_are_those_of_jupyter,
        messages_are_those_of_jupyter,
    ):
        check()
        print(json.dumps(check.__name__), flush=True)


run()
