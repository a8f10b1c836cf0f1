"""Tries out the patches of the gateway one by one: what they replace as it is, and as it is not.

Usage: gateway_patches.py FOLDER, which is that of the Python files. Prints a line for each check that holds.
"""

import asyncio
import contextlib
import json
import logging
import sys
from types import SimpleNamespace
from unittest import mock

sys.path.append(sys.argv[1])

import zmq
from effect_jupyter.gateway import app as gateway_app
from effect_jupyter.gateway import relay as gateway_relay
from effect_jupyter.kernel import cells
from effect_jupyter.kernel.application import KernelApp, PythonKernel
from ipykernel.iostream import IOPubThread, OutStream
from ipykernel.ipkernel import IPythonKernel
from jupyter_client.session import Session
from jupyter_server.services.kernels.connection import base
from jupyter_server.services.kernels.connection.channels import ZMQChannelsWebsocketConnection
from jupyter_server.services.kernels.handlers import MainKernelHandler
from jupyter_server.services.kernels.kernelmanager import MappingKernelManager
from kernel_gateway.gatewayapp import KernelGatewayApp
from kernel_gateway.services.kernels.manager import KernelGatewayIOLoopKernelManager
from tornado.websocket import WebSocketProtocol13
from zmq.eventloop.zmqstream import ZMQStream


def anything(*everything, **named):
    raise AssertionError("This must not be called")


def checks():
    """Each check of a patch, and the parts that it must notice to be others."""
    connection = ZMQChannelsWebsocketConnection
    yield gateway_app.check_connections, ((connection, "nudge"), (connection, "connect"), (connection, "disconnect"))
    yield gateway_app.check_sessions, ((connection, "_register_session"), (WebSocketProtocol13, "_abort"))
    yield gateway_app.check_environments, ((MainKernelHandler, "post"),)
    yield gateway_app.check_server, ((KernelGatewayApp, "init_http_server"),)
    manager = KernelGatewayIOLoopKernelManager
    yield gateway_app.check_managers, ((manager, "_async_wait"), (manager, "_async_launch_kernel"))
    relay = [(connection, name) for name in ("handle_outgoing_message", "handle_incoming_message", "create_stream")]
    relay += [(MappingKernelManager, "start_watching_activity"), (WebSocketProtocol13, "_write_frame")]
    relay += [(base, "serialize_msg_to_ws_v1"), (base, "deserialize_msg_from_ws_v1"), (Session, "send_raw")]
    relay += [(ZMQStream, "_run_callback")]
    yield gateway_relay.check_jupyter, relay


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
    connection, kernels = gateway_app.Connection, gateway_app.Kernels

    def flags():
        own = (connection.nudges, connection.replaces, connection.relays)
        return (*own, kernels.relays, gateway_app.Gateway.listens)

    assert flags() == (False,) * 5 and gateway_app.MainKernelHandler.post is post
    gateway_app.patch()
    assert flags() == (True,) * 5 and gateway_app.MainKernelHandler.post is not post


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
        for count in (0, 1, 4, 5, 9):
            parts = [bytes([index]) * (size + index) for index in range(count)]
            message = base.serialize_msg_to_ws_v1(parts, "iopub")
            frame = []
            stream = SimpleNamespace(write=frame.append)
            socket = SimpleNamespace(FIN=0x80, mask_outgoing=False, _wire_bytes_out=0, stream=stream)
            WebSocketProtocol13._write_frame(socket, True, 2, message)
            assert b"".join(gateway_relay.encoded("iopub", parts)) == b"".join(frame)
            assert gateway_relay.decoded(message) == base.deserialize_msg_from_ws_v1(message)
    for garbage in (b"", b"abc", b"\xff" * 8, b"\xff" * 80, b"\0" * 80):
        try:
            gateway_relay.decoded(garbage)
        except Exception:
            continue
        raise AssertionError(garbage)


async def messages_stay_in_order():
    """On sockets that fill up, and with streams that are flushed, stopped and closed meanwhile."""
    context = zmq.Context()
    ours, theirs = context.socket(zmq.PAIR), context.socket(zmq.PAIR)
    ours.setsockopt(zmq.SNDHWM, 5)
    theirs.setsockopt(zmq.RCVHWM, 5)
    theirs.bind("inproc://order")
    ours.connect("inproc://order")
    there = gateway_relay.Channel.instead_of(ZMQStream(theirs))
    here = gateway_relay.Channel(ours)
    total, drained = 1000, []
    heard, done = [], asyncio.Event()

    def hear(parts):
        heard.append(int(parts[0]))
        if len(heard) % 300 == 0:
            there.stop_on_recv()
            asyncio.get_running_loop().call_soon(there.on_recv, hear)
        if len(heard) == total:
            done.set()

    there.on_drained = lambda: drained.append(len(heard))
    for number in range(total):
        here.send_multipart([b"%d" % number, b"x" * 1000])
    assert here.sending(), "The socket was never full"
    there.on_recv(hear)
    there.flush(zmq.POLLIN, limit=3)
    await asyncio.wait_for(done.wait(), 30)
    assert heard == list(range(total)) and drained, heard[:10]
    # No more messages are sent, so that only the answer wakes the stream.
    answer = asyncio.get_running_loop().create_future()
    here.on_recv(answer.set_result)
    there.send_multipart([b"answer"])
    assert await asyncio.wait_for(answer, 10) == [b"answer"]
    there.on_recv(lambda _: there.close())
    here.send_multipart([b"end"])
    while not there.closed():
        await asyncio.sleep(0.001)
    here.close()
    context.term()


class Manager:
    """What the recorders of activity need of a manager of kernels."""

    log = logging.getLogger("none")
    track_message_type = MappingKernelManager.track_message_type
    untracked_message_types = MappingKernelManager.untracked_message_types.make_dynamic_default()
    relays = True

    def __init__(self, session):
        self.stream = SimpleNamespace(on_recv=lambda callback: setattr(self, "hear", callback))
        self.kernel = SimpleNamespace(
            session=session, connect_iopub=lambda: self.stream, execution_state="starting", last_activity=None
        )
        self._kernels = {"kernel": self.kernel}
        self.get_kernel = self._kernels.get


def activity_is_that_of_jupyter():
    ours, theirs = Manager(Session(key=b"key")), Manager(Session(key=b"key"))
    MappingKernelManager.start_watching_activity(theirs, "kernel")
    session = Session(key=b"key")

    def tell(kind, asked, state=None, key=b"key"):
        """What both take an event for: whether it was taken at all, whether it was activity, and the state."""
        session.key = key
        parent = None if asked is None else session.msg(asked)
        content = {"text": "x"} if state is None else {"execution_state": state}
        message = [b"topic", *session.serialize(session.msg(kind, content, parent=parent))]
        seen = []
        for manager, hear in (
            (ours, lambda parts: gateway_relay.Activity._record_activity(ours, ours.kernel, parts)),
            (theirs, theirs.hear),
        ):
            manager.kernel.last_activity = None
            try:
                hear(list(message))
                error = False
            except Exception:
                error = True
            is_active = manager.kernel.last_activity is not None
            seen.append((error, is_active and not error, manager.kernel.execution_state))
        assert seen[0] == seen[1], (kind, asked, state, seen)
        return seen[0]

    tell("status", None, "starting")
    assert tell("status", "kernel_info_request", "busy")[2] == "idle"
    assert tell("status", "execute_request", "busy")[1:] == (True, "busy")
    tell("stream", "execute_request")
    tell("status", "kernel_info_request", "idle")
    assert tell("status", "execute_request", "idle", key=b"other") == (True, False, "busy")
    assert tell("status", "execute_request", "idle")[2] == "idle"
    assert tell("stream", None)[1] is True
    assert tell("stream", "kernel_info_request")[1] is False
    tell("comm_msg", "comm_msg")


def run():
    logging.disable(logging.CRITICAL)
    for check in (
        patches_are_left_out_where_they_do_not_fit,
        all_or_nothing_is_put_in_its_place,
        kernels_are_left_as_they_are_where_they_do_not_fit,
        cells_are_left_to_ipython_where_it_does_not_fit,
        frames_are_those_of_jupyter,
        activity_is_that_of_jupyter,
    ):
        check()
        print(json.dumps(check.__name__), flush=True)
    asyncio.run(messages_stay_in_order())
    print(json.dumps(messages_stay_in_order.__name__), flush=True)


run()
