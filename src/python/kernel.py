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

# Only what is installed is imported until the shell adds the working directory, nothing from this folder.
del sys.path[0]

from ipykernel import kernelapp  # noqa: E402

kernelapp.launch_new_instance()
