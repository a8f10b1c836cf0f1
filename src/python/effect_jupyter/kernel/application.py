"""IPython's kernel for programs: output is sent early, in lines and without loss, and interrupts hit only the code."""

import atexit
import contextlib
import functools
import inspect
import os
import signal
import sys
import threading
from typing import Any

# Jupyter's debugger is not used by programs, and takes longer to load than everything else.
nothing: Any = None
has_debugger = "debugpy" in sys.modules
sys.modules.setdefault("debugpy", nothing)

import zmq
from ipykernel.iostream import BackgroundSocket, IOPubThread, OutStream
from ipykernel.ipkernel import IPythonKernel
from ipykernel.kernelapp import IPKernelApp
from ipykernel.kernelbase import Kernel
from IPython.core.events import EventManager
from IPython.core.interactiveshell import InteractiveShell
from IPython.core.ultratb import AutoFormattedTB
from jupyter_client.session import Session
from tornado.ioloop import IOLoop
from traitlets import Float, default

from effect_jupyter.compatibility import has_parameters, is_compatible, references
from effect_jupyter.kernel import cells, setup, streams
from effect_jupyter.kernel.connection import close_unused, take_listener
from effect_jupyter.kernel.imports import formatted_always, hold_while_importing, hold_while_showing
from effect_jupyter.kernel.interrupts import (
    Interrupt,
    interruptible_code,
    interruptible_hooks,
    is_main_thread,
    keep_running,
    set_handler,
)
from effect_jupyter.kernel.output import output
from effect_jupyter.kernel.prepared import PreparedApp, PreparedKernel
from effect_jupyter.kernel.requests import Requests
from effect_jupyter.kernel.tracebacks import is_amid, show_members
from effect_jupyter.kernel.values import end_fork

try:
    import ipykernel.debugger  # noqa: F401
except ImportError:
    pass  # it has none
if not has_debugger:
    # The code of the user may still import it.
    del sys.modules["debugpy"]


class PythonKernel(PreparedKernel):
    shell: Any
    # A delay of replies in favor of output is not needed: the client waits for both.
    _execute_sleep = Float(0.0).tag(config=True)
    # Messages that run code of the user outside of cells.
    leading_to_code = frozenset(("comm_open", "comm_msg", "comm_close", "complete_request", "inspect_request"))
    # The requests of its client; None if the kernel uses ipykernel's sockets.
    requests: Requests | None = None

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        setup.patch()

    def start(self):
        if self.requests is None:
            # The client sends the rest.
            return super().start()
        self.shell.exit_now = False
        Kernel.start(self)
        with threads_not_interrupted():
            self.requests.serve(self)
        setup.set_up()

    def _input_request(self, prompt, ident, parent, password=False):
        if self.requests is None:
            return super()._input_request(prompt, ident, parent, password)
        output.flush()
        return self.requests.input(prompt, parent, password)

    def _abort_queues(self, *args):
        # ipykernel aborts queued requests; the client sends one request at a time.
        if self.requests is None:
            super()._abort_queues(*args)

    def pre_handler_hook(self):
        if not is_main_thread():
            return  # a subshell: signals reach the main thread only
        parent: Any = self.get_parent("shell")
        kind = parent.get("header", {}).get("msg_type")
        Interrupt.came = False
        handler = Interrupt.handler if kind in self.leading_to_code else Interrupt.remember
        self.saved_sigint_handler = set_handler(signal.SIGINT, handler)

    def post_handler_hook(self):
        if is_main_thread():
            Interrupt.keep(set_handler(signal.SIGINT, self.saved_sigint_handler))

    def _cancel_on_sigint(self, future):
        return Interrupt.cancel(future, self.shell.user_global_ns)

    def set_parent(self, ident, parent, channel="shell"):
        """Attributes the output of other threads to the request of the main shell, not to one of a subshell."""
        is_main = is_main_thread()
        if is_main and channel == "shell":
            output.set_parent(parent)
        # A private part of ipykernel: if it is missing, ipykernel's behavior stays.
        context = getattr(self, "_shell_context", None)
        if is_main or channel != "shell" or context is None or not hasattr(self.shell, "set_thread_parent"):
            return super().set_parent(ident, parent, channel)
        Kernel.set_parent(self, ident, parent, channel)
        self._shell_context = context
        # The output of the user's methods during introspection is discarded.
        is_look = parent["header"]["msg_type"] in ("complete_request", "inspect_request")
        self.shell.set_thread_parent({**parent, "header": {}} if is_look else parent)

    async def do_execute(self, *args, **kwargs):
        process = os.getpid()
        try:
            return await super().do_execute(*args, **kwargs)
        finally:
            if os.getpid() != process:
                # A process that the code forked ends here: it is not another kernel.
                result = self.shell.last_execution_result
                end_fork(result and result.error_in_exec)
            # The code may have replaced `sys.stdout`.
            output.finish()


def after_output(thread):
    """Sends messages on IOPub after all earlier output."""
    send = thread.send_multipart

    def send_multipart(*args, **kwargs):
        if threading.current_thread() is not thread.thread:
            output.flush()
        send(*args, **kwargs)

    return send_multipart


@contextlib.contextmanager
def threads_not_interrupted():
    """Has threads that start meanwhile leave interrupts to the main thread, which is woken only by its own.

    After a process was stopped, the system gives a signal that waited to any of its threads.
    """
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def check_kernel():
    """Tells whether a kernel works without the sockets of ipykernel."""
    return (
        has_parameters(IPKernelApp.init_sockets, "self")
        and has_parameters(IPKernelApp.init_heartbeat, "self")
        and has_parameters(IPKernelApp.init_kernel, "self")
        and references(IPKernelApp.init_io, "outstream_class", "iopub_thread", "iopub_socket", "displayhook_class")
        and references(IPKernelApp.close, "heartbeat", "iopub_thread", "control_thread", "shell_channel_thread")
        and references(IPKernelApp.init_kernel, "instance", "record_ports", "displayhook", "get_execution_count")
        and references(Kernel.start, "control_stream", "shell_stream", "_publish_status")
        and references(Kernel.dispatch_shell, "set_parent", "shell_handlers", "pre_handler_hook", "post_handler_hook")
        and references(Kernel.process_control, "set_parent", "control_handlers")
        and references(Kernel.execute_request, "session", "send")
        and references(Kernel._publish_status, "session", "send", "iopub_socket")
        and has_parameters(Kernel._input_request, "self", "prompt", "ident", "parent", "password")
        and references(IPythonKernel.do_execute, "shell_channel_thread", "parent_thread")
        and has_parameters(
            Session.send,
            *("self", "stream", "msg_or_type", "content", "parent", "ident", "buffers", "track", "header", "metadata"),
        )
        and references(Session.msg_id.fget, "message_count", "session")
        and hasattr(threading.RLock(), "_is_owned")
        and sys.version_info >= (3, 11)
    )


class KernelApp(IPKernelApp, PreparedApp):
    poller: Any
    requests: Requests | None = None

    def parse_command_line(self, argv=None):
        """Skips the parser of Jupyter, which takes long although there are no options."""
        # The history is in memory: a file takes longer to open, and would be shared by all kernels.
        self.config.HistoryManager.hist_file = ":memory:"

    @default("parent_handle")
    def _default_parent_handle(self):
        # ipykernel reads it on import, which is before a forked kernel has its parent.
        return int(os.environ.get("JPY_PARENT_PID") or 0)

    def start(self):
        loop = IOLoop.current()
        if hasattr(loop, "asyncio_loop"):
            keep_running(loop)
        super().start()

    def init_poller(self):
        super().init_poller()
        if self.poller is not None:
            self.poller.start = threads_not_interrupted()(self.poller.start)

    def initialize(self, argv=None):
        with threads_not_interrupted():
            super().initialize(argv)
        # Skips messages below the level: otherwise traitlets formats them before it drops them.
        self.log.setLevel(self.log_level)

    @default("kernel_class")
    def _default_kernel_class(self):
        # These are private parts of ipykernel and IPython: if they differ, the original behavior stays.
        restores = references(IPythonKernel.post_handler_hook, "saved_sigint_handler")
        sleeps = isinstance(getattr(IPythonKernel, "_execute_sleep", None), Float)
        if not (restores and sleeps and inspect.iscoroutinefunction(getattr(InteractiveShell, "run_code", None))):
            return IPythonKernel
        InteractiveShell.run_code = interruptible_code(InteractiveShell.run_code)  # pyright: ignore[reportAttributeAccessIssue]
        EventManager.trigger = interruptible_hooks(EventManager.trigger)
        if references(InteractiveShell.showtraceback, "_get_exc_info", "InteractiveTB", "_showtraceback"):
            shown = show_members(InteractiveShell.showtraceback)
            InteractiveShell.showtraceback = hold_while_showing(shown, is_amid)
            AutoFormattedTB.structured_traceback = formatted_always(AutoFormattedTB.structured_traceback)
        hold_while_importing()
        cells.install()
        return PythonKernel

    @default("outstream_class")
    def _default_outstream_class(self):
        # These are private parts of ipykernel: if they differ, its own class is used.
        is_known = (
            references(OutStream.__init__, "_io_loop", "_parent_header_global", "_setup_stream_redirects", "_local")
            and references(OutStream.parent_header.fget, "_parent_header_global")
            and references(OutStream.flush, "pub_thread", "schedule", "_flush")
            and references(OutStream._flush, "session", "msg", "_hooks", "send", "topic")
            and references(IOPubThread.schedule, "_events", "_event_pipe")
            and references(BackgroundSocket.send_multipart, "io_thread", "send_multipart")
        )
        return f"{streams.__name__}.Stream" if is_known else "ipykernel.iostream.OutStream"

    @functools.cached_property
    def has_own_connection(self):
        """True if a kernel can serve its client itself."""
        is_ours = self.kernel_class is PythonKernel and "effect_jupyter" in str(self.outstream_class)
        return is_compatible("the connection of the kernel", lambda: is_ours and check_kernel())

    def init_sockets(self):
        listener = take_listener()
        if listener is None:
            return super().init_sockets()
        if not self.has_own_connection:
            super().init_sockets()
            # The client is refused, and connects to the gateway, which finds these sockets.
            return listener.close()
        self.requests = Requests(listener, self.session, output.flush)
        close_unused()
        atexit.register(self.close)
        self.configure_tornado_logger()
        self.iopub_thread = self.iopub_socket = self.requests.publisher
        self.iopub_thread.start()

    def init_heartbeat(self):
        if self.requests is None:
            super().init_heartbeat()

    def write_connection_file(self, **kwargs):
        # The gateway has written it.
        if self.requests is None:
            super().write_connection_file(**kwargs)

    def init_kernel(self):
        if self.requests is None:
            return super().init_kernel()
        kernel = self.kernel_class.instance(
            parent=self,
            session=self.session,
            shell_channel_thread=self.requests.subshells,
            iopub_thread=self.iopub_thread,
            iopub_socket=self.iopub_socket,
            stdin_socket=self.requests.stdin,
            log=self.log,
            profile_dir=self.profile_dir,
            user_ns=self.user_ns,
        )
        kernel.requests = self.requests
        kernel.record_ports({})
        self.kernel = kernel
        self.displayhook.get_execution_count = lambda: kernel.execution_count

    def init_iopub(self, context):
        # By default ZeroMQ silently drops messages if a subscriber has 1000 unread ones.
        context.setsockopt(zmq.SNDHWM, 0)
        super().init_iopub(context)
        self.iopub_thread.send_multipart = after_output(self.iopub_thread)
        # Otherwise it creates its internal socket with the first output, when there may be no free descriptors.
        self.iopub_thread.schedule(lambda: getattr(self.iopub_thread, "_event_pipe", None))
