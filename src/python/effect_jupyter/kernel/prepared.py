"""A kernel and its shell, made before the process of the kernel is forked: they take longer than the rest of its start."""

import contextlib
import os
import sys
import uuid
from datetime import datetime
from typing import Any

from ipykernel.ipkernel import IPythonKernel
from ipykernel.kernelapp import IPKernelApp
from ipykernel.zmqshell import ZMQInteractiveShell
from IPython.core.application import BaseIPythonApplication
from IPython.core.history import HistoryManager
from IPython.core.interactiveshell import InteractiveShell

from effect_jupyter.compatibility import has_parameters, references

CONFIGURATION = [f"{name}.{kind}" for name in ("ipython_config", "ipython_kernel_config") for kind in ("py", "json")]
# The steps of a start that keep nothing of the process, in their order.
STEPS = ("init_pdb", "configure_tornado_logger", "init_shell", "init_extensions")


class PreparedApp(BaseIPythonApplication):
    """The part of a kernel's application that needs neither a session nor sockets."""

    is_prepared = False
    # Of `IPKernelApp`.
    kernel: Any
    kernel_class: Any
    user_ns: Any

    @classmethod
    def instance(cls, *args, **kwargs):
        app = super().instance(*args, **kwargs)
        if app.is_prepared:
            for name, value in kwargs.items():
                setattr(app, name, value)
        return app

    def prepare(self):
        """Creates the kernel with its shell. Returns whether that was possible."""
        self.parse_command_line()
        self.init_crash_handler()
        self.init_profile_dir()
        self.init_config_files()
        if self._is_configured() or not issubclass(self.kernel_class, PreparedKernel):
            return False
        self.kernel = self.kernel_class.instance(
            parent=self, log=self.log, profile_dir=self.profile_dir, user_ns=self.user_ns
        )
        for name in STEPS:
            getattr(self, name)()
            setattr(self, name, lambda: None)
        # The formatters are created when a first value is shown.
        self.kernel.shell.display_formatter.format(0)
        self.kernel_class.is_prepared = self.is_prepared = True
        return True

    def initialize(self, argv=None):
        if self.is_prepared and self._is_configured():
            # The configuration concerns the creation of the shell.
            self.is_prepared = self.kernel_class.is_prepared = False
            for name in STEPS:
                delattr(self, name)
            ZMQInteractiveShell.clear_instance()
            self.kernel_class.clear_instance()
        if not self.is_prepared:
            super().initialize(argv)

    def _is_configured(self):
        return any(
            os.path.exists(os.path.join(path, name)) for path in self.config_file_paths for name in CONFIGURATION
        )


class PreparedKernel(IPythonKernel):
    """A kernel that is given its session, its sockets and its streams after its creation."""

    is_prepared = False
    shell: Any
    ident: Any

    @classmethod
    def instance(cls, *args, **kwargs):
        kernel = super().instance(*args, **kwargs)
        if cls.is_prepared:
            cls.is_prepared = False
            kernel._complete(kwargs)
        return kernel

    def _complete(self, members):
        """Does what the constructors of a kernel and of a shell do with members and with the state of the process."""
        for name, value in members.items():
            setattr(self, name, value)
        self._stdout, self._stderr = sys.stdout, sys.stderr
        self.ident = str(uuid.uuid4())
        shell, name = self.shell, os.environ.get("JPY_SESSION_NAME")
        shell.starting_dir = os.getcwd()
        shell.init_environment()
        shell.save_sys_module_state()
        begin(shell.history_manager)
        shell.init_user_ns()
        if name:
            shell.user_ns["__session__"] = name
        shell.displayhook.session = shell.display_pub.session = self.session
        shell.displayhook.pub_socket = shell.display_pub.pub_socket = self.iopub_socket
        shell.displayhook.topic = self._topic("execute_result")


def begin(history):
    """Has a history in memory that was made in another process begin in this one."""
    history.reset(new_session=False)
    if not history.enabled:
        return
    import sqlite3

    with contextlib.suppress(sqlite3.Error), history.db:
        # SQLite seeds its random numbers again when it opens a file in another process.
        sqlite3.connect(os.devnull).close()
        history.db.execute("UPDATE sessions SET start = ?", (datetime.now().isoformat(" "),))


def check():
    """Tells whether a kernel is completed as it would be created."""
    create: Any = IPythonKernel.__init__
    members = {name for name in create.__code__.co_names if name.isidentifier()}
    known = (
        "JPY_SESSION_NAME __file__ __init__ __session__ _is_debugpy_available _kernel_modules _publish_debug_event _topic"
        " _use_appnope _darwin_app_nap HasTraits append appnope comm comm_manager compiler_class configurables copy"
        " debug_just_my_code debug_shell_socket debugger debugger_class debugpy_stream display_pub displayhook environ"
        " filter_internal_frames get get_comm_manager getattr hasattr instance iopub_socket isinstance log modules nope os"
        " profile_dir pub_socket session shell shell_class shell_handlers super sys topic user_module user_ns values"
    ).split()
    return (
        members.issubset(known)
        and references(InteractiveShell.init_history, "history_manager", "HistoryManager")
        and has_parameters(HistoryManager.reset, "self", "new_session")
        and references(HistoryManager.reset, "output_hist", "dir_hist")
        and all(has_parameters(getattr(IPKernelApp, name), "self") for name in STEPS)
        and references(InteractiveShell.init_user_ns, "history_manager", "user_ns", "user_ns_hidden")
        and has_parameters(InteractiveShell.save_sys_module_state, "self")
        and has_parameters(ZMQInteractiveShell.init_environment, "self")
        and references(BaseIPythonApplication.initialize, "init_profile_dir", "init_config_files", "load_config_file")
        and references(
            IPKernelApp.initialize, "initialize", "init_io", "init_kernel", "init_shell", "init_pdb", "init_extensions"
        )
        and references(IPKernelApp.init_shell, "shell", "kernel", "configurables", "append")
    )
