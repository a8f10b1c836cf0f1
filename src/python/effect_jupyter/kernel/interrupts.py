"""Interrupts hit the code of the user alone, wherever it is: in a statement, in a hook, or in an `await`."""

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
    # The functions of `signal` make enums of what they take and return, which takes longer than all else.
    signals: Any = importlib.import_module("_signal")
except ImportError:
    signals = signal
set_handler, getsignal = signals.signal, signals.getsignal


class Interrupt:
    """An interrupt is for the code of the user.

    Anywhere else Python's own handler would tear a message in two, swallow a reply, or end the kernel: there it is
    remembered for the code that is about to run.
    """

    came = False
    # What the code has made of SIGINT, which holds while code runs.
    handler: Any = signal.default_int_handler
    # The handler of the cell that awaits something.
    awaiting = None
    # The task of that cell.
    cell = None
    # Whether the cell that awaits something is in its own code.
    is_in_code = False
    # Whether the cell that awaits something was cancelled by an interrupt, and the exception that was shown as one.
    cancelled = False
    shown = None

    @classmethod
    def remember(cls, number, frame):
        cls.came = True

    @classmethod
    def take(cls):
        """Raises the one that came before the code did."""
        if cls.came and is_main_thread():
            cls.came = False
            raise KeyboardInterrupt

    @classmethod
    def is_remembered(cls):
        """Whether it is for us to let interrupts through: other handlers have their reasons."""
        return is_main_thread() and getsignal(signal.SIGINT) == cls.remember

    @classmethod
    def is_ours(cls):
        return is_main_thread() and getsignal(signal.SIGINT) in (cls.remember, cls.awaiting)

    @classmethod
    @contextlib.contextmanager
    def let_through(cls):
        """The handler is the code's for a while, and what the code makes of it is kept."""
        previous = set_handler(signal.SIGINT, cls.handler)
        try:
            yield
        finally:
            cls.keep(set_handler(signal.SIGINT, previous))

    @classmethod
    def keep(cls, handler):
        # A handler that is not Python's cannot be set again.
        if handler is not None and handler not in (cls.remember, cls.awaiting):
            cls.handler = handler

    @classmethod
    def of(cls, error):
        """The interrupt that a cancellation of ours stands for, as `asyncio.run` tells it; None for other errors."""
        if not (cls.cancelled and issubclass(type(error), asyncio.CancelledError)):
            return None
        cls.shown = error
        return KeyboardInterrupt().with_traceback(error.__traceback__)

    @classmethod
    @contextlib.contextmanager
    def cancel(cls, cell, names):
        """For a cell that awaits: cancels it where it waits, raises where it runs. `names` is its global namespace.

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
            # In a task or a callback of the code KeyboardInterrupt would end the loop, and the kernel with it.
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
    """Has the event loop of a kernel run until it is stopped, whatever code raises in it.

    asyncio lets out KeyboardInterrupt and SystemExit of tasks and callbacks, and what a signal handler raises while it
    waits, which ends programs: in a kernel it ends the cell that awaits something.
    """
    start, process = loop.start, os.getpid()

    def run():
        while True:
            try:
                return start()
            except BaseException as error:
                if os.getpid() != process or loop.asyncio_loop.is_closed():
                    raise
                # A task keeps it for what awaits the task.
                if not is_of_task(error):
                    traceback.print_exception(type(error), error, error.__traceback__)
                    if Interrupt.cell is not None:
                        Interrupt.cancelled = Interrupt.cancelled or isinstance(error, KeyboardInterrupt)
                        Interrupt.cell.cancel()

    loop.start = run


def is_of_task(error):
    """Whether a task of asyncio, rather than a callback or the loop itself, let it out."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code is not asyncio.Handle._run.__code__:
        trace = trace.tb_next
    first = trace and trace.tb_next
    return bool(first and first.tb_frame.f_code.co_flags & inspect.CO_COROUTINE)


def is_main_thread():
    return threading.current_thread() is threading.main_thread()


def is_run_by(frame, names):
    """Whether code with this global namespace runs, or waits for what runs."""
    while frame is not None:
        if frame.f_globals is names:
            return True
        frame = frame.f_back
    return False


def interruptible_code(run_code):
    """IPython's own way to run code, with the code's handler of interrupts."""

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
            # The reply names what was shown.
            error = getattr(result, "error_in_exec", None)
            if is_cell and error is not None and error is Interrupt.shown:
                result.error_in_exec = Interrupt.of(error)

    return run


def interruptible_hooks(trigger):
    """The same for what the user wants to run before and after each cell; drawing plots is such a hook."""

    @functools.wraps(trigger)
    def run(self, *args, **kwargs):
        if not Interrupt.is_ours():
            return trigger(self, *args, **kwargs)
        # The reply gives the traceback that was shown last, which is to be that of the code.
        traceback = getattr(self.shell, "_last_traceback", None)
        try:
            with Interrupt.let_through():
                trigger(self, *args, **kwargs)
        except KeyboardInterrupt:
            pass  # between two of them
        finally:
            if traceback:
                self.shell._last_traceback = traceback

    return run
