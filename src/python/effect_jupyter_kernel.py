"""IPython's kernel, made fit for programs: output comes early and in lines, none is dropped, interrupts hit the code alone."""

import functools
import signal
import time

import zmq
from ipykernel.iostream import OutStream
from ipykernel.ipkernel import IPythonKernel
from ipykernel.kernelapp import IPKernelApp
from IPython.core.interactiveshell import InteractiveShell
from traitlets import default


class Stream(OutStream):
    """Sends lines soon after they are written, and not the half of one that a `print` has just begun.

    ipykernel collects output for a fifth of a second and sends what is there then; timers that it set for output
    which has been flushed since cut the next `print` between its text and its line break.
    """

    # Past ten seconds, which hundreds of megabytes can take, ipykernel complains within the output of the code.
    flush_timeout = 600
    flush_interval = 0.01
    # How long a line may be written, in seconds; prompts and dots of progress are such lines.
    patience = 0.2
    _since = 0.0

    def _schedule_flush(self):
        if not self._flush_pending:
            self._flush_pending = True
            self._since = time.monotonic()
            self.pub_thread.schedule(functools.partial(self._flush_later, self._since))

    def _flush_later(self, since):
        self._io_loop.call_later(self.flush_interval, self._flush_in_time, since)

    def _flush_in_time(self, since):
        if not self._flush_pending or since != self._since:
            return  # somebody flushed
        if time.monotonic() < since + self.patience and self._is_within_line():
            self._flush_later(since)
        else:
            self._flush()

    def _is_within_line(self):
        with self._buffer_lock:
            return any(last_of(buffer) not in ("", "\n", "\r") for buffer in self._buffers.values())


def last_of(buffer):
    """The last character of what was written to a buffer, whose position is its end."""
    end = buffer.tell()
    buffer.seek(max(end - 1, 0))
    return buffer.read(1)


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
        names = {*OutStream._schedule_flush.__code__.co_names, *OutStream._rotate_buffers.__code__.co_names}
        fits = {"_flush_pending", "pub_thread", "schedule", "_buffer_lock", "_buffers"} <= names
        return f"{__name__}.Stream" if fits else "ipykernel.iostream.OutStream"

    def init_iopub(self, context):
        # ZeroMQ drops what a subscriber is too slow for, past 1000 messages and without a word.
        context.setsockopt(zmq.SNDHWM, 0)
        super().init_iopub(context)
