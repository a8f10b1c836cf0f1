"""Starts an IPython kernel that does not outlive its gateway. Takes the path of a connection file."""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def die_with(parent):
    """Ends this process when `parent`, which started it, ends."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it died before the line above
            os._exit(1)


def load():
    """The class of the application. Only what is installed is imported, nothing from this folder but the kernel."""
    folder = sys.path.pop(0)
    sys.path.append(folder)
    writes, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    from effect_jupyter_kernel import KernelApp

    sys.path.remove(folder)
    sys.dont_write_bytecode = writes
    return KernelApp


if __name__ == "__main__":
    die_with(int(os.environ["JPY_PARENT_PID"]))
    load().launch_instance(connection_file=sys.argv[1])
