"""The process that the kernels of a gateway are forked from, which has imported the modules that all of them need.

Usage: zygote.py DESCRIPTOR MODULE ...

DESCRIPTOR is a socket to the gateway, which keeps messages apart. Each is a JSON object; `zygote_client.py` has the
other side. {"ready": true} goes out once the MODULEs are imported, {"failed": why} if there can be no kernels of this
process, {"refused": why} if it is for a MODULE that cannot be imported. {"request": number, "argv", "env", "cwd",
"stderr", "until"} comes in for a kernel, with a descriptor that is to be its standard error if "stderr" is true;
{"forked": pid, "request"} goes out, then {"pid", "request"} from the new process itself, before the time "until", when
it is a kernel, or {"unforked": why, "request"} if the fork failed. The number of a process that ended stays taken until
{"reap": pid} comes in. Nothing that goes wrong with a request ends this process, whose end is that of all its kernels.
"""

import os
import sys

# The folder that contains only this package, instead of the folder of this file.
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path[: not getattr(sys.flags, "safe_path", sys.flags.isolated)] = [ROOT]
sys.dont_write_bytecode = True

import ctypes
import errno
import fnmatch
import gc
import importlib
import json
import signal
import socket
import tempfile
import threading
import time

from effect_jupyter.compatibility import is_compatible
from effect_jupyter.kernel import load_application
from effect_jupyter.system import die_with

MAX_MESSAGE = 1024 * 1024
LOADED_BY_ALL = (
    "IPython.core.completerlib IPython.core.debugger IPython.core.logger IPython.core.oinspect"
    " IPython.extensions.storemagic IPython.utils.wildcard cProfile concurrent.futures.thread faulthandler pdb pstats sqlite3 stringprep"
    " tornado.platform.asyncio unicodedata"
).split()
MARK = b"EFFECT_JUPYTER_KERNEL"
# Errors of the system that are temporary.
SHORTAGES = (errno.ENOBUFS, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EINTR, errno.EAGAIN)


def preload(modules):
    """Imports the modules of the option `preload`, from the working directory as well, as a kernel would."""
    path = list(sys.path)
    sys.path.insert(0, "")
    # The kernel sets the same value, but too late if matplotlib is imported already.
    os.environ.setdefault("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    for module in modules:
        try:
            importlib.import_module(module)
        except BaseException as error:
            raise Refused(f'The module "{module}" could not be loaded: {type(error).__name__}: {error}') from None
    sys.path[:] = path


def warm_up():
    """Imports the modules that every kernel would import while it starts."""
    from jupyter_client import localinterfaces

    localinterfaces.localhost()
    # The patterns of startup files.
    for pattern in ("*.py", "*.ipy"):
        fnmatch.filter((), pattern)
    for module in LOADED_BY_ALL:
        try:
            importlib.import_module(module)
        except ImportError:
            pass  # this version has none
    try:
        show_exception()
    except Exception:
        pass  # in this version it goes another way
    if "matplotlib.pyplot" in sys.modules:
        try:
            draw()
        except Exception:
            pass  # with these settings it cannot; that is for the user's code to find out


def prepare(application):
    """Makes the kernel and the shell, if the private parts of IPython are as expected; otherwise each process does."""
    from effect_jupyter.kernel import prepared

    if is_compatible("shells made before processes", prepared.check):
        app = application.instance()
        if not (app.has_own_connection and app.prepare()):
            application.clear_instance()


def show_exception():
    """Shows an exception: its modules could not be imported later during an interrupt or without descriptors."""
    from IPython.core.ultratb import AutoFormattedTB

    try:
        raise ValueError("none")
    except ValueError as error:
        AutoFormattedTB(mode="Context").structured_traceback(ValueError, error, error.__traceback__)


def draw():
    """Draws a plot, which caches fonts and formats. The figure is not one of pyplot, which has those of the user."""
    import io

    import IPython.core.pylabtools  # noqa: F401
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure()
    FigureCanvasAgg(figure)
    figure.add_subplot().plot([0, 1])
    figure.savefig(io.BytesIO(), format="png", bbox_inches="tight")


def check_for_threads():
    """Refuses a fork with other threads, whose locks would stay locked. Some libraries end their threads for a fork."""
    if threading.active_count() > 1:
        raise RuntimeError(f"There are threads: {', '.join(thread.name for thread in threading.enumerate())}")
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    count = len(os.listdir("/proc/self/task"))
    if count > 1:
        raise RuntimeError(f"Libraries keep {count - 1} threads of their own")


class Refused(Exception):
    """A module of the option `preload` cannot be imported."""


class Control:
    """The connection with the gateway. This process ends when it is closed."""

    def __init__(self, descriptor):
        self._socket = socket.socket(fileno=descriptor)
        self._socket.set_inheritable(False)

    def send(self, **message):
        while True:
            try:
                self._socket.send(json.dumps(message).encode())
                return
            except OSError as error:
                self._wait_after(error)

    def receive(self):
        """Returns the next message and the files that are attached to it."""
        while True:
            try:
                message, files, _, _ = socket.recv_fds(self._socket, MAX_MESSAGE, 2)
            except (OSError, MemoryError) as error:
                self._wait_after(error)
                continue
            if not message:
                os._exit(0)
            return message, files

    def _wait_after(self, error):
        """Waits until the system may have resources again."""
        if isinstance(error, OSError) and error.errno not in SHORTAGES:
            os._exit(0)
        time.sleep(0.05)

    def close(self):
        self._socket.close()


def serve(control):
    """Forks a kernel for each request. Returns in the kernel only, with the request and its files."""
    while True:
        message, files = control.receive()
        request = None
        try:
            request = answer(control, message, files)
        except Exception as error:
            refuse(control, message, error)
        if request is not None:
            return request, files
        for file in files:
            os.close(file)


def answer(control, message, files):
    """Handles a message. Returns the request in the forked process, and None in this one."""
    request = json.loads(message)
    if "reap" in request:
        try:
            os.waitpid(request["reap"], os.WNOHANG)
        except ChildProcessError:
            pass  # it was already collected
        return None
    if len(request["files"]) != len(files):
        raise OSError(errno.EMFILE, f"Of its {' and '.join(request['files'])} not all was received")
    pid = os.fork()
    if pid == 0:
        return request
    control.send(forked=pid, request=request["request"])
    return None


def refuse(control, message, error):
    """Answers that no kernel was forked for a message."""
    try:
        number = json.loads(message)["request"]
    except Exception:
        number = None
    try:
        control.send(unforked=f"{type(error).__name__}: {error}"[:1000], request=number)
    except Exception:
        pass  # without memory; the gateway does not wait for long


def place_of_mark():
    """Returns the address of the mark in this process's initial environment, by which its descendants are found."""
    getenv = ctypes.CDLL(None).getenv
    getenv.restype = ctypes.c_void_p
    return getenv(MARK)


def become_kernel(kernel, files, zygote, place):
    """Turns the forked process into the state of one that was just started for the kernel."""
    die_with(zygote)
    received = dict(zip(kernel["files"], files))
    if "stderr" in received:
        os.dup2(received["stderr"], 2)
        os.close(received["stderr"])
    mark = kernel["env"][MARK.decode()].encode()
    ctypes.memmove(place, mark, len(mark))
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(kernel["cwd"])
    os.environ.clear()
    os.environ.update(kernel["env"], JPY_PARENT_PID=str(zygote))
    if "listener" in received:
        os.environ["EFFECT_JUPYTER_LISTENER"] = str(received["listener"])
    time.tzset()
    tempfile.tempdir = None
    # Python seeds its own generators again after every fork.
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed()
    sys.argv[:] = kernel["argv"]


def main():
    descriptor, *modules = sys.argv[1:]
    die_with(int(os.environ.pop("EFFECT_JUPYTER_GATEWAY")))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    control = Control(int(descriptor))
    place = place_of_mark()
    app = load_application()
    before = dict(os.environ)
    try:
        preload(modules)
        warm_up()
        prepare(app)
        check_for_threads()
    except Refused as error:
        control.send(refused=str(error))
        sys.exit(1)
    except RuntimeError as error:
        control.send(failed=str(error))
        sys.exit(1)
    gc.collect()
    # Collecting the objects that exist would only copy their memory pages.
    gc.freeze()
    control.send(ready=True)
    changed = {name: value for name, value in os.environ.items() if before.get(name) != value}
    zygote = os.getpid()
    kernel, files = serve(control)
    try:
        become_kernel(kernel, files, zygote, place)
        for name, value in changed.items():
            # The time at which the module is loaded in a started kernel.
            if kernel["env"].get(name) == before.get(name):
                os.environ[name] = value
        if time.monotonic() > kernel["until"]:
            # Another one was started in its place, and has its sockets.
            os._exit(1)
    except BaseException as error:
        control.send(unforked=f"{type(error).__name__}: {error}"[:1000], request=kernel["request"])
        os._exit(1)
    control.send(pid=os.getpid(), request=kernel["request"])
    control.close()
    app.launch_instance(connection_file=sys.argv[1])


main()
