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

import zmq  # noqa: E402
from ipykernel.kernelapp import IPKernelApp  # noqa: E402


class Kernel(IPKernelApp):
    def init_iopub(self, context):
        # ZeroMQ drops what a subscriber is too slow for, past 1000 messages and without a word.
        context.setsockopt(zmq.SNDHWM, 0)
        super().init_iopub(context)


Kernel.launch_instance()
