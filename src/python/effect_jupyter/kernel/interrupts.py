"""Directs interrupts to the code of the user only: in a statement, in a hook, or in an `await`."""

import asyncio
import contextlib
import functools
import importlib
import inspect
import os
import signal
import threading
import traceback
from typing import Any

try:
    # The functions of `signal` convert to enums, which takes longer than everything else.
    signals: Any = importlib.import_module("_signal")
except ImportError:
    signals = signal
set_handler, getsignal = signals.signal, signals.getsignal


class Interrupt:
    """Handles SIGINT.

    Outside of the user's code Python's own handler would truncate a message, lose a reply, or end the kernel. There an
    interrupt is kept for the code that is about to run.
    """

    came = False
    # The handler of SIGINT that the code has set, which applies while code runs.
    handler: Any = signal.default_int_handler
    # The handler of the cell that is awaiting.
    awaiting = None
    # The task of that cell.
    cell = None
    # True while the cell that is awaiting runs its own code.
    is_in_code = False
    # True if an interrupt cancelled the cell that is awaiting, and the exception that was shown as an interrupt.
    cancelled = False
    shown = None

    @classmethod
    def remember(cls, number, frame):
        cls.came = True

    @classmethod
    def take(cls):
        """Raises an interrupt that arrived before the code began."""
        if cls.came and is_main_thread():
            cls.came = False
            raise KeyboardInterrupt

    @classmethod
    def is_remembered(cls):
        """Tells whether SIGINT has the handler of the kernel; handlers of the code are not replaced."""
        return is_main_thread() and getsignal(signal.SIGINT) == cls.remember

    @classmethod
    def is_ours(cls):
        return is_main_thread() and getsignal(signal.SIGINT) in (cls.remember, cls.awaiting)

    @classmethod
    @contextlib.contextmanager
    def let_through(cls):
        """Sets the handler of the code while it runs, and keeps the one that it has set at its end."""
        previous = set_handler(signal.SIGINT, cls.handler)
        try:
            yield
        finally:
            cls.keep(set_handler(signal.SIGINT, previous))

    @classmethod
    def keep(cls, handler):
        # A handler that was not set by Python cannot be restored.
        if handler is not None and handler not in (cls.remember, cls.awaiting):
            cls.handler = handler

    @classmethod
    def of(cls, error):
        """Returns the interrupt that caused a cancellation, in the form of `asyncio.run`; None for other errors."""
        if not (cls.cancelled and issubclass(type(error), asyncio.CancelledError)):
            return None
        cls.shown = error
        return KeyboardInterrupt().with_traceback(error.__traceback__)

    @classmethod
    @contextlib.contextmanager
    def cancel(cls, cell, names):
        """Handles an interrupt of a cell that awaits: cancels it in an `await`, raises in its code. `names` are its
        globals.

        `asyncio.run` raises with the second interrupt only, and not before code that blocks ends by itself.
        """
        cls.cell = cell
        try:
            with cls.let_through() if cls.handler is not signal.default_int_handler else cls.cancel_by(cell, names):
                yield
        finally:
            cls.cell = cls.shown = None
            cls.cancelled = False

    @classmethod
    @contextlib.contextmanager
    def cancel_by(cls, cell, names):
        loop = asyncio.get_running_loop()
        others = asyncio.all_tasks(loop) - {cell}
        count = 0

        def interrupt(number, frame):
            nonlocal count
            count += 1
            task = asyncio.current_task(loop)
            if task is cell:
                if cls.is_in_code:
                    raise KeyboardInterrupt
                cls.came = True
                return
            cls.cancelled = True
            loop.call_soon_threadsafe(cell.cancel)
            # A KeyboardInterrupt in a task or a callback of the code would end the loop, and the kernel with it.
            is_another = task is not None and task not in others
            if is_run_by(frame, names) or (is_another and count > 1):
                raise asyncio.CancelledError

        cls.awaiting = interrupt
        previous = set_handler(signal.SIGINT, interrupt)
        try:
            yield
        finally:
            cls.keep(set_handler(signal.SIGINT, previous))
            cls.awaiting = None


def keep_running(loop):
    """Runs the event loop of a kernel until it is stopped, despite exceptions of code.

    KeyboardInterrupt and SystemExit in tasks, callbacks and signal handlers end the event loop of asyncio. In a kernel
    they end the cell that is awaiting.
    """
    start, process = loop.start, os.getpid()

    def run():
        while True:
            try:
                return start()
            except BaseException as error:
                if os.getpid() != process or loop.asyncio_loop.is_closed():
                    raise
                # A task keeps its exception for the code that awaits it.
                if not is_of_task(error):
                    traceback.print_exception(type(error), error, error.__traceback__)
                    if Interrupt.cell is not None:
                        Interrupt.cancelled = Interrupt.cancelled or isinstance(error, KeyboardInterrupt)
                        Interrupt.cell.cancel()

    loop.start = run


def is_of_task(error):
    """Tells whether a task of asyncio raised the exception, and not a callback or the loop itself."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code is not asyncio.Handle._run.__code__:
        trace = trace.tb_next
    first = trace and trace.tb_next
    return bool(first and first.tb_frame.f_code.co_flags & inspect.CO_COROUTINE)


def is_main_thread():
    return threading.current_thread() is threading.main_thread()


def is_run_by(frame, names):
    """Tells whether code with these globals is on the stack."""
    while frame is not None:
        if frame.f_globals is names:
            return True
        frame = frame.f_back
    return False


def interruptible_code(run_code):
    """Runs code as IPython does, with the code's handler of interrupts."""

    @functools.wraps(run_code)
    async def run(self, code, result: Any = None, **kwargs):
        Interrupt.take()
        if Interrupt.is_remembered():
            with Interrupt.let_through():
                return await run_code(self, code, result, **kwargs)
        is_cell = is_main_thread()
        Interrupt.is_in_code = is_cell or Interrupt.is_in_code
        try:
            return await run_code(self, code, result, **kwargs)
        finally:
            Interrupt.is_in_code = not is_cell and Interrupt.is_in_code
            # The reply names the exception that was shown.
            error = getattr(result, "error_in_exec", None)
            if is_cell and error is not None and error is Interrupt.shown:
                result.error_in_exec = Interrupt.of(error)

    return run


def interruptible_hooks(trigger):
    """Wraps hooks that run before and after each cell, such as the one that draws plots, in the same way."""

    @functools.wraps(trigger)
    def run(self, event, *args, **kwargs):
        modules = (str(getattr(hook, "__module__", None)) for hook in self.callbacks[event])
        if all(name.startswith(("IPython.", "ipykernel.")) for name in modules) or not Interrupt.is_ours():
            return trigger(self, event, *args, **kwargs)
        # The reply has the traceback that was shown last, which must be that of the code.
        traceback = getattr(self.shell, "_last_traceback", None)
        try:
            with Interrupt.let_through():
                trigger(self, event, *args, **kwargs)
        except KeyboardInterrupt:
            pass  # between two of them
        finally:
            if traceback:
                self.shell._last_traceback = traceback

    return run
