"""The process that the kernels of a gateway are forked from: what all of them import is there already.

Usage: zygote.py DESCRIPTOR MODULE ...

DESCRIPTOR is a socket to the gateway, which keeps messages apart. Each is a JSON object; `gateway_zygote.py` has the
other side. {"ready": true} goes out once the MODULEs are imported, {"failed": why} if there can be no kernels of this
process, {"refused": why} if it is for a MODULE that cannot be imported. {"request": number, "argv", "env", "cwd",
"until"} comes in for a kernel, with a descriptor that is to be its standard error; it answers {"pid", "request":
number} itself, before that time. When a kernel ends,
{"exited": pid, "code", "request"} goes out; its number stays taken until {"reap": pid} comes in.
"""

import ctypes
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
import tempfile
import threading
import time

from kernel import die_with, load

LARGEST = 1024 * 1024
LOADED_BY_ALL = (
    "IPython.core.completerlib IPython.core.debugger IPython.core.oinspect IPython.extensions.storemagic"
    " IPython.utils.wildcard cProfile concurrent.futures.thread faulthandler pdb pstats sqlite3 stringprep"
    " tornado.platform.asyncio unicodedata"
).split()
MARK = b"EFFECT_JUPYTER_KERNEL"


def preload(modules):
    """Imports what the user names, from the working directory too, as a kernel would."""
    path = list(sys.path)
    sys.path.insert(0, "")
    # As the kernel will have it, which sets it too late for a matplotlib that is there already.
    os.environ.setdefault("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    for module in modules:
        try:
            importlib.import_module(module)
        except BaseException as error:
            raise Refused(f'The module "{module}" could not be loaded: {type(error).__name__}: {error}') from None
    sys.path[:] = path


def warm_up():
    """Loads what every kernel would load while it starts."""
    from jupyter_client import localinterfaces

    localinterfaces.localhost()
    for module in LOADED_BY_ALL:
        try:
            importlib.import_module(module)
        except ImportError:
            pass  # this version has none
    if "matplotlib.pyplot" in sys.modules:
        try:
            draw()
        except Exception:
            pass  # with these settings it cannot; that is for the user's code to find out


def draw():
    """Fonts and formats are looked for with the first plot. No figure of the user's: those are pyplot's."""
    import io

    import IPython.core.pylabtools  # noqa: F401
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure()
    FigureCanvasAgg(figure)
    figure.add_subplot().plot([0, 1])
    figure.savefig(io.BytesIO(), format="png", bbox_inches="tight")


def check_for_threads():
    """A thread is not in the copy, and what it held would be held for ever. Some libraries end theirs for a fork."""
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
    """What the user asked for is not to be had."""


class Control:
    """The connection with the gateway."""

    def __init__(self, descriptor):
        self._socket = socket.socket(fileno=descriptor)
        self._socket.set_inheritable(False)

    def fileno(self):
        return self._socket.fileno()

    def tell(self, **message):
        self._socket.send(json.dumps(message).encode())

    def hear(self):
        """The next message and the files that came with it; None when the gateway is gone."""
        message, files, _, _ = socket.recv_fds(self._socket, LARGEST, 1)
        return (json.loads(message) if message else None), files

    def close(self):
        self._socket.close()


def serve(control, wakeup):
    """Forks a kernel for each request; returns in the kernel only, with what it is to be."""
    kernels = {}
    while True:
        ready, _, _ = select.select([control, wakeup], [], [])
        if wakeup in ready:
            os.read(wakeup, 512)
            for pid in list(kernels):
                # Its number stays taken, so that nobody signals another process by it.
                end = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
                if end is not None:
                    code = end.si_status if end.si_code == os.CLD_EXITED else -end.si_status
                    control.tell(exited=pid, code=code, request=kernels.pop(pid))
        if control in ready:
            request, files = control.hear()
            if request is None:
                os._exit(0)
            if "reap" in request:
                os.waitpid(request["reap"], 0)
                continue
            pid = os.fork()
            for file in files:
                if pid == 0:
                    os.dup2(file, 2)
                os.close(file)
            if pid == 0:
                return request
            kernels[pid] = request["request"]


def place_of_mark():
    """Where the system shows the environment that this process was started with: what a kernel leaves is found by it."""
    getenv = ctypes.CDLL(None).getenv
    getenv.restype = ctypes.c_void_p
    return getenv(MARK)


def become(kernel, zygote, place):
    """From here on this process is as if it had just been started for the kernel."""
    die_with(zygote)
    mark = kernel["env"][MARK.decode()].encode()
    ctypes.memmove(place, mark, len(mark))
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(kernel["cwd"])
    os.environ.clear()
    os.environ.update(kernel["env"], JPY_PARENT_PID=str(zygote))
    time.tzset()
    tempfile.tempdir = None
    # Python's own generators are seeded anew by every fork.
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
    app = load()
    # The user may have a module of this name.
    del sys.modules["kernel"]
    before = dict(os.environ)
    try:
        preload(modules)
        warm_up()
        check_for_threads()
    except Refused as error:
        control.tell(refused=str(error))
        sys.exit(1)
    except RuntimeError as error:
        control.tell(failed=str(error))
        sys.exit(1)
    wakeup, wakeup_writer = os.pipe()
    os.set_blocking(wakeup_writer, False)
    signal.set_wakeup_fd(wakeup_writer, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    gc.collect()
    # Looking for garbage among what is here would only copy the pages that it lies on.
    gc.freeze()
    control.tell(ready=True)
    changed = {name: value for name, value in os.environ.items() if before.get(name) != value}
    zygote = os.getpid()
    kernel = serve(control, wakeup)
    signal.set_wakeup_fd(-1)
    for end in (wakeup, wakeup_writer):
        os.close(end)
    become(kernel, zygote, place)
    for name, value in changed.items():
        # As if the module were loaded now.
        if kernel["env"].get(name) == before.get(name):
            os.environ[name] = value
    if time.monotonic() > kernel["until"]:
        # Another one was started in its place, and has its sockets.
        os._exit(1)
    control.tell(pid=os.getpid(), request=kernel["request"])
    control.close()
    app.launch_instance(connection_file=sys.argv[1])


main()
