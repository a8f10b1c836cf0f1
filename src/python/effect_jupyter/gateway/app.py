"""Jupyter Kernel Gateway, set up for one program on this machine; `gateway/main.py` starts it."""

import asyncio
import errno
import inspect
import json
import os
import sys
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
from effect_jupyter.gateway import forks, limits, relay
from effect_jupyter.gateway.kernels import OWN_KERNEL, Kernels, Manager, SandboxedKernels, requested_env

PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PORT_TAKEN = 98
# Code and its buffers arrive in one frame; tornado's default of 10 MB closes the connection.
MAX_FRAME = 1024 * 1024 * 1024


class Connection(relay.Relay):
    """Sends each message at once: Nagle's algorithm and delayed acknowledgements cost 40 ms a message."""

    # Whether Jupyter Server's own ways to do these two are what is replaced here.
    nudges = False
    replaces = False
    is_new = False
    _listening = None
    kernel_manager: Any
    channels: Any

    def connect(self):
        self.websocket_handler.set_nodelay(True)
        return super().connect()

    async def _register_session(self):
        """Ends at once what this connection replaces: a closing handshake with nobody would lose output."""
        stale = self._open_sessions.get(f"{self.kernel_id}:{self.session.session}") if self.replaces else None
        if stale is not None and stale.ws_connection is not None:
            stale.ws_connection._abort()
            for _ in range(1000):
                if stale.connection is None:
                    break
                await asyncio.sleep(0.001)
        await super()._register_session()

    def create_stream(self):
        self.is_new = True
        super().create_stream()

    def nudge(self):
        """Waits until new channels work. On channels that a client comes back to it would swallow a message.

        Jupyter Server asks twice a second for output, and waits for what another channel hears too.
        """
        return asyncio.ensure_future(self._wait_for_output()) if self.nudges else super().nudge()

    async def _wait_for_output(self):
        # A busy kernel has output enough, and would answer late.
        if not self.is_new or self.kernel_manager.execution_state == "busy":
            return
        received = asyncio.Event()

        def receive(_):
            self._stop_listening()
            received.set()

        self._listening = self.channels["iopub"]
        self._listening.on_recv(receive)
        asked = [self.kernel_manager.connect_control()]
        if self.kernel_manager.kernel_name != OWN_KERNEL:
            # Many kernels answer it there alone, or put out nothing about what comes on the control channel.
            asked.append(self.kernel_manager.connect_shell())
        try:
            for pause in pauses(self.kernel_info_timeout):
                for channel in asked:
                    self.session.send(channel, "kernel_info_request")
                try:
                    return await asyncio.wait_for(received.wait(), pause)
                except asyncio.TimeoutError:
                    if self._listening is None or self.kernel_id not in self.multi_kernel_manager:
                        return
        finally:
            for channel in asked:
                channel.close()
            self._stop_listening()

    def _stop_listening(self):
        if self._listening is not None and not self._listening.closed():
            self._listening.stop_on_recv()
        self._listening = None

    def disconnect(self):
        was_listening = self._listening is not None
        # What comes from now on is kept for whoever comes back.
        self._stop_listening()
        super().disconnect()
        if was_listening:
            self.channels = {}


def pauses(total):
    """Seconds to wait, again and again, ever longer up to half a second, `total` together."""
    pause = 0.01
    while total > 0:
        yield pause
        total -= pause
        pause = min(2 * pause, 0.5)


class Gateway(KernelGatewayApp):
    def init_webapp(self):
        super().init_webapp()
        self.web_app.settings["websocket_max_message_size"] = MAX_FRAME

    listens = False

    def init_http_server(self):
        if not self.listens:
            if self.port == 0:
                # Jupyter's own way does not tell which one the system chose.
                [free, *others] = bind_sockets(0, self.ip)
                self.port = free.getsockname()[1]
                for listening in (free, *others):
                    listening.close()
            return super().init_http_server()
        self.http_server = HTTPServer(self.web_app, max_buffer_size=MAX_FRAME)
        try:
            sockets = bind_sockets(self.port, self.ip)
        except OSError as error:
            print(f"Cannot listen on {self.ip}:{self.port}: {error}", file=sys.stderr)
            sys.exit(PORT_TAKEN if error.errno == errno.EADDRINUSE else 1)
        self.http_server.add_sockets(sockets)
        self.port = sockets[0].getsockname()[1]


def give_each_kernel_its_environment():
    """Kernel Gateway keeps the environment of a request in a place that concurrent requests share."""

    stock_post: Any = JupyterMainKernelHandler.post

    async def post(self):
        env = (self.get_json_body() or {}).get("env", {})
        if not isinstance(env, dict):
            raise HTTPError(400, "The environment of a kernel is an object")
        # All of it: the request comes from our own program.
        requested_env.set({"PATH": os.environ.get("PATH", ""), **env})
        with Manager.room.for_kernel(env):
            await stock_post(self)

    MainKernelHandler.post = post


def check_connections():
    stock = ZMQChannelsWebsocketConnection
    return (
        has_parameters(stock.nudge, "self")
        and references(stock.connect, "nudge", "add_done_callback", "create_stream", "channels")
        and references(stock.nudge, "kernel_info_timeout", "channels", "kernel_manager", "multi_kernel_manager")
        and references(stock.disconnect, "channels", "start_buffering")
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
    """Puts our ways in the places of Jupyter's where these are what ours were made for."""
    Connection.nudges = is_compatible("connections that open at once", check_connections)
    Connection.replaces = is_compatible("connections that replace others at once", check_sessions)
    Gateway.listens = is_compatible("large requests", check_server)
    Connection.relays = Kernels.relays = is_compatible("the relay of messages", relay.check_jupyter)
    if is_compatible("an environment for each kernel", check_environments):
        give_each_kernel_its_environment()


def write_kernelspec(runtime_dir, launcher, is_sandboxed):
    """A kernel that dies with the gateway, found before any that the user has installed."""
    directory = os.path.join(runtime_dir, "kernels", OWN_KERNEL)
    os.makedirs(directory)
    with open(os.path.join(directory, "kernel.json"), "w") as file:
        json.dump(
            {
                "argv": [sys.executable, *launcher, "{connection_file}"],
                "display_name": "Python 3 (effect-jupyter)",
                "language": "python",
                # A signal to the sandbox would end it; `SandboxedKernels` knows whom to send it to.
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
    # The client pings; a ping that a busy loop answers late would close the connection.
    config.KernelGatewayApp.ws_ping_interval = 0
    config.KernelGatewayApp.kernel_manager_class = kernels
    if is_compatible("kernels whose end is noticed soon", check_managers):
        config.SeedingMappingKernelManager.kernel_manager_class = "effect_jupyter.gateway.kernels.Manager"
    config.SeedingMappingKernelManager.root_dir = settings["workingDir"]
    # A kernel that does not end by itself is killed; whoever deleted it is not interested in it any more.
    config.KernelManager.shutdown_wait_time = 1.0
    # A dead kernel stays dead and says so: a new one under the same id would hide the loss of state.
    config.KernelRestarter.restart_limit = 0
    config.KernelRestarter.time_to_dead = 0.5
    # Output is never thrown away to protect a browser.
    config.ZMQChannelsWebsocketConnection.limit_rate = False
    return config


def run(settings, environment, sandbox, zygote, send):
    """Serves until the process ends; `sandbox` has a place for every kernel, `zygote` forks them; either can be None."""
    patch()
    Manager.environment = environment
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
    write_kernelspec(settings["runtimeDir"], launcher, sandbox is not None)
    app = Gateway.instance()
    app.update_config(configuration(settings, kernels))
    if sandbox is not None:
        # A request that names another specification would leave the sandbox.
        app.force_kernel_name = OWN_KERNEL
    app.initialize(argv=[])
    # Messages that nobody sees need not be made; traitlets drops them only when they are.
    app.log.setLevel(app.log_level)
    # Six sockets and more for each kernel; ZeroMQ's default is 1023 in all.
    context = app.kernel_manager.context
    context.set(zmq.MAX_SOCKETS, context.get(zmq.SOCKET_LIMIT))
    # ZeroMQ drops what a subscriber is too slow for, past 1000 messages and without a word.
    context.setsockopt(zmq.RCVHWM, 0)
    # A kernel that just starts does not listen yet; ZeroMQ would look again after 100 ms.
    context.setsockopt(zmq.RECONNECT_IVL, 10)
    send({"port": app.port})
    app.start()
