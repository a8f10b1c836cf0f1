"""Starts an IPython kernel that does not outlive its gateway. Takes the arguments of `ipykernel_launcher`."""

import ctypes
import os
import signal
import sys
import time

PR_SET_PDEATHSIG = 1

if sys.platform.startswith("linux"):
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(os.environ["JPY_PARENT_PID"]):  # it died before the line above
        os._exit(1)

# Only what is installed is imported until the shell adds the working directory, nothing from this folder.
del sys.path[0]

import zmq  # noqa: E402
from ipykernel.iostream import OutStream  # noqa: E402
from ipykernel.kernelapp import IPKernelApp  # noqa: E402
from traitlets import default  # noqa: E402


class Stream(OutStream):
    """Ignores timers that were set for output that has been flushed since.

    A `print` writes its text and its line break one after the other; such a timer cuts between the two.
    """

    _due = 0.0

    def _schedule_flush(self):
        if not self._flush_pending:
            self._due = time.monotonic() + self.flush_interval
        super()._schedule_flush()

    def flush(self):
        self._due = 0.0
        super().flush()

    def _flush(self):
        # Timers may be early by as much as their clock is coarse.
        if time.monotonic() >= self._due - 0.01:
            super()._flush()


class Kernel(IPKernelApp):
    @default("outstream_class")
    def _default_outstream_class(self):
        # These are private parts of ipykernel: where they are others, its own class will do.
        fits = all(hasattr(OutStream, name) for name in ("_flush", "_schedule_flush"))
        return f"{__name__}.Stream" if fits else "ipykernel.iostream.OutStream"

    def init_iopub(self, context):
        # ZeroMQ drops what a subscriber is too slow for, past 1000 messages and without a word.
        context.setsockopt(zmq.SNDHWM, 0)
        super().init_iopub(context)


Kernel.launch_instance()
