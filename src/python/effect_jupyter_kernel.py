"""IPython's kernel, made fit for programs: no output is cut in two, none is dropped, interrupts hit the code alone."""

import signal
import time

import zmq
from ipykernel.iostream import OutStream
from ipykernel.ipkernel import IPythonKernel
from ipykernel.kernelapp import IPKernelApp
from IPython.core.interactiveshell import InteractiveShell
from traitlets import default


class Stream(OutStream):
    """Ignores timers that were set for output that has been flushed since.

    A `print` writes its text and its line break one after the other; such a timer cuts between the two.
    """

    # Past ten seconds, which hundreds of megabytes can take, ipykernel complains within the output of the code.
    flush_timeout = 600
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


def interrupt_code(number, frame):
    """Raises KeyboardInterrupt if it is the user's code that runs.

    Anywhere else it would tear a message in two, swallow a reply, or end the kernel.
    """
    while frame is not None:
        if frame.f_code is InteractiveShell.run_code.__code__:
            raise KeyboardInterrupt
        frame = frame.f_back


class PythonKernel(IPythonKernel):
    def pre_handler_hook(self):
        self.saved_sigint_handler = signal.signal(signal.SIGINT, interrupt_code)


class KernelApp(IPKernelApp):
    @default("kernel_class")
    def _default_kernel_class(self):
        # These are private parts of ipykernel and IPython: where they are others, their own way will do.
        restores = "saved_sigint_handler" in IPythonKernel.post_handler_hook.__code__.co_names
        fits = restores and hasattr(getattr(InteractiveShell, "run_code", None), "__code__")
        return PythonKernel if fits else IPythonKernel

    @default("outstream_class")
    def _default_outstream_class(self):
        # These are private parts of ipykernel: where they are others, its own class will do.
        fits = all(hasattr(OutStream, name) for name in ("_flush", "_schedule_flush"))
        return f"{__name__}.Stream" if fits else "ipykernel.iostream.OutStream"

    def init_iopub(self, context):
        # ZeroMQ drops what a subscriber is too slow for, past 1000 messages and without a word.
        context.setsockopt(zmq.SNDHWM, 0)
        super().init_iopub(context)
