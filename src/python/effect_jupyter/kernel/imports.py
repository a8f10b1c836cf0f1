"""Delays interrupts while a library imports a module, or a traceback is formatted: an interrupt would leave it
incomplete. Imports by the code itself can be interrupted.
"""

import _thread
import functools
import importlib
import inspect
import signal
import sys
import threading
import time
import traceback
from typing import Any

from effect_jupyter.kernel.interrupts import Interrupt, is_main_thread

# Maximum seconds of the delay of an interrupt; a second one is not delayed.
MAX_DELAY = 1.0


class Hold:
    """Delays interrupts until `release`. Used in the main thread only."""

    def __init__(self):
        self._came = self._is_over = False
        self._handler: Any = signal.signal(signal.SIGINT, self._keep)

    @staticmethod
    def is_needed():
        """Tells whether SIGINT has the handler of the kernel; handlers of the code are not replaced."""
        return is_main_thread() and signal.getsignal(signal.SIGINT) in (signal.default_int_handler, Interrupt.awaiting)

    def _keep(self, number, frame):
        if self._came:
            self._handler(number, frame)
            return
        self._came = True
        # Not a thread of `threading`, which needs a lock that the interrupted code may hold.
        _thread.start_new_thread(self._insist, (threading.main_thread().ident,))

    def _insist(self, main):
        time.sleep(MAX_DELAY)
        if not self._is_over:
            signal.pthread_kill(main, signal.SIGINT)

    def release(self, frame, passes_on=True):
        """Ends the delay. A delayed interrupt hits the code if it is still running."""
        self._is_over = True
        signal.signal(signal.SIGINT, self._handler)
        if self._came and passes_on:
            self._handler(signal.SIGINT, frame)


class Imports:
    """The function with which Python loads modules, which it looks up by this name for each import."""

    place: Any = getattr(importlib, "_bootstrap", None)
    load: Any = getattr(place, "_find_and_load", None)
    # True while the code imports a module: imports by that module are interrupted with it.
    is_of_code = False

    @classmethod
    def is_compatible(cls):
        return inspect.isfunction(cls.load) and list(inspect.signature(cls.load).parameters) == ["name", "import_"]

    @classmethod
    def is_asked_by_code(cls, frame):
        """Tells whether the code itself imports, and not a library."""
        while frame is not None and "importlib" in frame.f_code.co_filename:
            frame = frame.f_back
        return frame is not None and frame.f_globals.get("__name__") == "__main__"


def find_and_load(name, import_):
    if Imports.is_of_code or not Hold.is_needed():
        return Imports.load(name, import_)
    if Imports.is_asked_by_code(sys._getframe(1)):
        Imports.is_of_code = True
        try:
            return Imports.load(name, import_)
        finally:
            Imports.is_of_code = False
    hold = Hold()
    try:
        return Imports.load(name, import_)
    finally:
        hold.release(sys._getframe(1))


def hold_while_importing():
    """Replaces Python's function to load modules, if it has the expected form."""
    if Imports.is_compatible():
        # Python removes frames with this file name from tracebacks.
        code = find_and_load.__code__.replace(co_filename=Imports.load.__code__.co_filename)
        find_and_load.__code__ = code
        Imports.place._find_and_load = find_and_load


def hold_while_showing(showtraceback, is_by_code):
    """Shows an exception as IPython does, with interrupts delayed. After the end of the code they are dropped."""

    @functools.wraps(showtraceback)
    def show(self, *args, **kwargs):
        if not Hold.is_needed():
            return showtraceback(self, *args, **kwargs)
        hold = Hold()
        try:
            return showtraceback(self, *args, **kwargs)
        finally:
            hold.release(sys._getframe(1), is_by_code(sys._getframe(1), self.user_global_ns))

    return show


def formatted_always(structured_traceback):
    """Formats an exception as IPython does, or as Python does if that fails, for instance without descriptors."""

    @functools.wraps(structured_traceback)
    def format_exception(self, etype=None, evalue=None, etb=None, *args, **kwargs):
        try:
            return structured_traceback(self, etype, evalue, etb, *args, **kwargs)
        except Exception:
            if not isinstance(evalue, BaseException):
                raise
            # The first frame is IPython's.
            trace = etb.tb_next or etb if etb is not None else None
            return "".join(traceback.format_exception(type(evalue), evalue, trace)).rstrip("\n").split("\n")

    return format_exception
