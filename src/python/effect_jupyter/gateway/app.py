"""Jupyter Kernel Gateway, configured for one program on this machine; `gateway/main.py` starts it."""

import asyncio
import errno
import inspect
import json
import os
import struct
import sys
import weakref
from typing import Any

import zmq
from jupyter_server.services.kernels.connection.channels import ZMQChannelsWebsocketConnection
from jupyter_server.services.kernels.handlers import MainKernelHandler as JupyterMainKernelHandler
from jupyter_server.services.kernels.websocket import KernelWebsocketHandler
from kernel_gateway.gatewayapp import KernelGatewayApp
from kernel_gateway.services.kernels.handlers import MainKernelHandler
from kernel_gateway.services.kernels.manager import KernelGatewayIOLoopKernelManager
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import HTTPError
from tornado.websocket import WebSocketHandler, WebSocketProtocol13
from traitlets.config import Config

from effect_jupyter.compatibility import has_parameters, is_compatible, references
from effect_jupyter.gateway import attachments, forks, join, limits
from effect_jupyter.gateway.kernels import Kernels, requested_env
from effect_jupyter.gateway.manager import OWN_KERNEL, Manager, check_pauses, leave_out_pauses
from effect_jupyter.gateway.sandboxed_kernels import SandboxedKernels

PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PORT_TAKEN = 98
# Code and its buffers arrive in one frame; tornado's default of 10 MB closes the connection.
MAX_FRAME = 1024 * 1024 * 1024
# Maximum bytes of the body of a request, which has the environment of a kernel at most, and seconds to receive it.
MAX_BODY, BODY_TIMEOUT = 16 * 1024 * 1024, 60.0


class Connection(ZMQChannelsWebsocketConnection):
    """Sends each message at once: Nagle's algorithm and delayed acknowledgements cost 40 ms a message."""

    # True if a connection that another one replaces is ended without a closing handshake.
    replaces = False
    # True if requests for input that a broken connection may have lost are sent again.
    repeats = False
    # By kernel and session, the latest request for input without a reply. A connection that broke may have lost either.
    _unanswered: Any = weakref.WeakKeyDictionary()
    # True if Jupyter Server counts this connection as one of the kernel.
    _is_counted = False
    kernel_manager: Any

    async def prepare(self):
        # The sockets of a kernel that has ended are closed, too; Jupyter waits for its report.
        if await self.kernel_manager.is_alive() and self.multi_kernel_manager.serves_itself(self.kernel_id):
            raise limits.Told(409, "The kernel serves its only client itself")
        await super().prepare()

    def connect(self):
        self._is_counted = True
        self.websocket_handler.set_nodelay(True)
        self.multi_kernel_manager.serve_by_gateway(self.kernel_id)
        connected = super().connect()
        if self.repeats and connected is not None:
            connected.add_done_callback(self._send_again)
        return connected

    def disconnect(self):
        is_counted, self._is_counted = self._is_counted, False
        if is_counted:
            return super().disconnect()
        # Jupyter Server subtracts a connection that broke before it was counted, and keeps output only if the count is
        # exactly 0. With one more than needed, it does not drop the output that it has kept.
        kernels = self.multi_kernel_manager
        kernels.notify_connect(self.kernel_id)
        kernels.notify_connect(self.kernel_id)
        super().disconnect()
        kernels.notify_disconnect(self.kernel_id)

    @property
    def _inputs(self):
        return self._unanswered.setdefault(self.kernel_manager, {})

    def _send_again(self, _):
        # The client drops a request that it has received before, as one of those that the server kept.
        unanswered = self._inputs.get(self.session_key)
        if "stdin" in self.channels and unanswered is not None:
            self.handle_outgoing_message(self.channels["stdin"], unanswered)

    def handle_outgoing_message(self, stream: Any, outgoing_msg):
        if not self.repeats:
            return super().handle_outgoing_message(stream, outgoing_msg)
        if stream.channel == "stdin":
            self._inputs[self.session_key] = [*outgoing_msg]
        if stream.channel == "shell" and self.kernel_manager.shutting_down:
            return  # Jupyter interrupts what runs first: the code did not end by itself.
        super().handle_outgoing_message(stream, outgoing_msg)

    def handle_incoming_message(self, incoming_msg):
        if self.repeats and self.session_key in self._inputs and is_for_stdin(incoming_msg):
            del self._inputs[self.session_key]
        super().handle_incoming_message(incoming_msg)

    async def _register_session(self):
        """Ends the replaced connection without a closing handshake, during which output would be lost."""
        stale = self._open_sessions.get(f"{self.kernel_id}:{self.session.session}") if self.replaces else None
        if stale is not None and stale.ws_connection is not None:
            stale.ws_connection._abort()
            for _ in range(1000):
                if stale.connection is None:
                    break
                await asyncio.sleep(0.001)
        await super()._register_session()


def is_for_stdin(message):
    """Tells whether a message of a client, in either format, is one of the channel of inputs."""
    if isinstance(message, str):
        return json.loads(message).get("channel") == "stdin"
    start, end = struct.unpack_from("<2Q", message, 8)
    return message[start:end] == b"stdin"


class Gateway(KernelGatewayApp):
    def init_webapp(self):
        super().init_webapp()
        self.web_app.settings["websocket_max_message_size"] = MAX_FRAME
        if Manager.output_retention is not None:
            self.web_app.add_handlers(".*$", attachments.handlers)
        if self.is_served:
            self.web_app.add_handlers(".*$", join.HANDLERS)
            settings = self.web_app.settings
            settings["headers"] = {**settings.get("headers", {}), **join.HEADER}

    listens = False
    # True if programs on other machines are clients.
    is_served = False

    def init_http_server(self):
        if not self.listens:
            if self.port == 0:
                # Jupyter does not report the port that the system chose.
                [free, *others] = bind_sockets(0, self.ip)
                self.port = free.getsockname()[1]
                for listening in (free, *others):
                    listening.close()
            return super().init_http_server()
        self.http_server = HTTPServer(
            self.web_app, max_buffer_size=MAX_FRAME, max_body_size=MAX_BODY, body_timeout=BODY_TIMEOUT
        )
        try:
            sockets = bind_sockets(self.port, self.ip)
        except OSError as error:
            print(f"Cannot listen on {self.ip}:{self.port}: {error}", file=sys.stderr)
            sys.exit(PORT_TAKEN if error.errno == errno.EADDRINUSE else 1)
        self.http_server.add_sockets(sockets)
        self.port = sockets[0].getsockname()[1]


def give_each_kernel_its_environment():
    """Separates the environments of concurrent requests, which Kernel Gateway keeps in one variable."""

    stock_post: Any = JupyterMainKernelHandler.post

    async def post(self):
        env = (self.get_json_body() or {}).get("env", {})
        if not isinstance(env, dict):
            raise HTTPError(400, "The environment of a kernel is an object")
        # All variables, which are of the client's own kernel.
        requested_env.set({"PATH": os.environ.get("PATH", ""), **Manager.common, **env})
        with Manager.room.for_kernel(env):
            await stock_post(self)

    MainKernelHandler.post = post


def check_connections():
    stock = ZMQChannelsWebsocketConnection
    return (
        has_parameters(stock.handle_outgoing_message, "self", "stream", "outgoing_msg")
        and has_parameters(stock.handle_incoming_message, "self", "incoming_msg")
        and references(stock.create_stream, "channel", "channels")
        and references(stock.connect, "create_stream", "on_recv_stream", "handle_outgoing_message", "channels")
    )


def check_sessions():
    stock = ZMQChannelsWebsocketConnection
    return (
        asyncio.iscoroutinefunction(stock._register_session)
        and has_parameters(stock._register_session, "self")
        and references(stock._register_session, "_open_sessions", "session_key", "kernel_id", "session")
        and references(WebSocketHandler.on_connection_close, "on_close")
        and references(KernelWebsocketHandler.on_close, "connection", "disconnect")
        and has_parameters(WebSocketProtocol13._abort, "self")
    )


def check_environments():
    return (
        asyncio.iscoroutinefunction(inspect.unwrap(JupyterMainKernelHandler.post))
        and has_parameters(JupyterMainKernelHandler.post, "self")
        and references(JupyterMainKernelHandler.post, "get_json_body", "start_kernel")
        and references(MainKernelHandler.post, "get_json_body", "start_kernel")
    )


def check_server():
    return has_parameters(KernelGatewayApp.init_http_server, "self") and references(
        KernelGatewayApp.init_http_server, "http_server", "web_app", "ip", "port"
    )


def check_managers():
    wait = KernelGatewayIOLoopKernelManager._async_wait
    launch = KernelGatewayIOLoopKernelManager._async_launch_kernel
    return (
        asyncio.iscoroutinefunction(wait)
        and has_parameters(wait, "self", "pollinterval")
        and references(wait, "sleep")
        and asyncio.iscoroutinefunction(launch)
        and has_parameters(launch, "self", "kernel_cmd", "kw")
        and hasattr(KernelGatewayIOLoopKernelManager, "provisioner")
    )


def patch():
    """Replaces the methods of Jupyter that have the expected form."""
    Connection.repeats = is_compatible("inputs that are asked for again", check_connections)
    Connection.replaces = is_compatible("connections that replace others at once", check_sessions)
    if is_compatible("starts and ends without a pause", check_pauses):
        leave_out_pauses()
    Gateway.listens = is_compatible("large requests", check_server)
    if is_compatible("an environment for each kernel", check_environments):
        give_each_kernel_its_environment()


def write_kernelspec(runtime_dir, launcher, is_sandboxed):
    """Writes the kernelspec of a kernel that ends with the gateway. It precedes those that the user has installed."""
    directory = os.path.join(runtime_dir, "kernels", OWN_KERNEL)
    os.makedirs(directory)
    with open(os.path.join(directory, "kernel.json"), "w") as file:
        json.dump(
            {
                "argv": [sys.executable, *launcher, "{connection_file}"],
                "display_name": "Python 3 (effect-jupyter)",
                "language": "python",
                # A signal would end the sandbox; `SandboxedKernels` sends it to the kernel inside.
                "interrupt_mode": "message" if is_sandboxed else "signal",
                "metadata": {"debugger": False},
            },
            file,
        )


def configuration(settings, kernels):
    config = Config()
    config.KernelGatewayApp.ip = settings["host"]
    config.KernelGatewayApp.port = settings["port"]
    config.KernelGatewayApp.port_retries = 0
    config.KernelGatewayApp.log_level = settings["logLevel"]
    config.KernelGatewayApp.kernel_websocket_connection_class = Connection
    config.KernelGatewayApp.default_kernel_name = OWN_KERNEL
    config.JupyterWebsocketPersonality.list_kernels = True
    # The client sends pings; one of the server that a busy loop answers late would close the connection.
    config.KernelGatewayApp.ws_ping_interval = 0
    config.KernelGatewayApp.kernel_manager_class = kernels
    if is_compatible("detection of the end of kernels", check_managers):
        Manager.is_used = True
        config.SeedingMappingKernelManager.kernel_manager_class = "effect_jupyter.gateway.manager.Manager"
    config.SeedingMappingKernelManager.root_dir = settings["workingDir"]
    # A deleted kernel that does not end by itself is killed.
    config.KernelManager.shutdown_wait_time = 1.0
    # A dead kernel is not restarted: a new one with the same id would hide the loss of state.
    config.KernelRestarter.restart_limit = 0
    config.KernelRestarter.time_to_dead = 0.5
    # Jupyter's limit drops output to protect a browser.
    config.ZMQChannelsWebsocketConnection.limit_rate = False
    return config


def run(settings, environment, sandbox, zygote, leases, send):
    """Serves until the process ends.

    `sandbox` sandboxes kernels, `zygote` forks them, `leases` are those of programs that share the gateway; all can be
    None.
    """
    patch()
    Gateway.is_served = Kernels.is_served = settings["isServed"]
    Manager.environment = environment
    Manager.output_retention = settings.get("outputRetention")
    Manager.common = settings["kernelEnv"] if settings["isServed"] else {}
    Manager.room = limits.Room()
    kernels = Kernels
    script = os.path.join(PACKAGE, "kernel", "main.py")
    launcher = [script]
    if zygote is not None:
        kernels.zygote = zygote
        forks.install(zygote, script)
    if sandbox is not None:
        kernels = SandboxedKernels
        kernels.sandbox = sandbox
        kernels.send = staticmethod(send)
        launcher = ["-I", "-S", os.path.join(PACKAGE, "sandbox", "launcher.py")]
    kernels.leases = leases
    write_kernelspec(settings["runtimeDir"], launcher, sandbox is not None)
    app = Gateway.instance()
    app.update_config(configuration(settings, kernels))
    if sandbox is not None:
        # A request that names another specification would leave the sandbox.
        app.force_kernel_name = OWN_KERNEL
    app.initialize(argv=[])
    # Skips messages below the level: otherwise traitlets formats them before it drops them.
    app.log.setLevel(app.log_level)
    # Each kernel needs six sockets and more; ZeroMQ's default is 1023 in all.
    context = app.kernel_manager.context
    context.set(zmq.MAX_SOCKETS, context.get(zmq.SOCKET_LIMIT))
    # By default ZeroMQ silently drops messages if a subscriber has 1000 unread ones.
    context.setsockopt(zmq.RCVHWM, 0)
    # A kernel that is starting does not listen yet; ZeroMQ's default is a retry after 100 ms.
    context.setsockopt(zmq.RECONNECT_IVL, 10)
    if leases is not None:
        leases.listen(app.kernel_manager, app.web_app)
    send({"port": app.port})
    app.start()
