"""Starts an IPython kernel that does not outlive its gateway. Takes the arguments of `ipykernel_launcher`."""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1

if sys.platform.startswith("linux"):
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(os.environ["JPY_PARENT_PID"]):  # it died before the line above
        os._exit(1)

# Only what is installed is imported, nothing from this folder but the kernel.
folder = sys.path.pop(0)
sys.path.append(folder)
writes, sys.dont_write_bytecode = sys.dont_write_bytecode, True

from effect_jupyter_kernel import KernelApp  # noqa: E402

sys.path.remove(folder)
sys.dont_write_bytecode = writes
KernelApp.launch_instance()
