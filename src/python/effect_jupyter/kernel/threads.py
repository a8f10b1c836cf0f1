"""The threads of a kernel: one that sends text, and one for each subshell."""

import asyncio
import functools
import inspect
import queue
import sys
import threading
import traceback
import types
import uuid
from heapq import heappop, heappush
from itertools import count
from time import monotonic
from typing import Any

from ipykernel.iostream import IOPubThread

from effect_jupyter.kernel.messages import Channel


class Publisher(Channel, IOPubThread):
    """The thread that sends text. It replaces ipykernel's, which has an event loop and sockets that wake it."""

    def __init__(self, sender):
        super().__init__("iopub", sender)
        self._tasks = queue.SimpleQueue()
        self._timers = []
        self._numbers = count()
        self.io_loop = self.background_socket = self
        self.thread = threading.Thread(target=self._run, name="IOPub", daemon=True)

    def start(self):
        self.thread.start()

    def schedule(self, task):
        if self.thread.is_alive():
            self._tasks.put(task)
        else:
            task()

    def call_later(self, delay, task, *args):
        """Runs a task after a delay in seconds. Only this thread calls it."""
        heappush(self._timers, (monotonic() + delay, next(self._numbers), functools.partial(task, *args)))

    def _run(self):
        while True:
            pause = max(0.0, self._timers[0][0] - monotonic()) if self._timers else None
            try:
                task = self._tasks.get(timeout=pause)
            except queue.Empty:
                task = heappop(self._timers)[2]
            try:
                task()
            except Exception:
                traceback.print_exc(file=sys.__stderr__)

    def stop(self):
        pass  # the thread ends with the process

    def close(self):
        pass


class Subshell(threading.Thread):
    """A thread that runs requests concurrently with the main shell."""

    def __init__(self, name, requests):
        super().__init__(name=f"subshell-{name}", daemon=True)
        self._requests = requests
        self.waiting = queue.SimpleQueue()

    def run(self):
        self._requests.sender.stay_beside()
        while (message := self.waiting.get()) is not None:
            try:
                self._run(message)
            except Exception:
                traceback.print_exc(file=sys.__stderr__)

    def _run(self, message):
        coroutine = self._requests.run(message)
        # Only cells can await something; an event loop needs descriptors, which may be exhausted.
        if message["msg_type"] != "execute_request":
            return drive(coroutine)
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        try:
            loop.run_until_complete(coroutine)
        finally:
            loop.close()


class Subshells:
    """The subshells of a kernel. It replaces ipykernel's thread for subshells and its manager."""

    def __init__(self):
        self.manager = self
        self.parent_thread = threading.main_thread()
        self._threads = {}

    def create(self, requests):
        name = str(uuid.uuid4())
        thread = Subshell(name, requests)
        # It fails if there are too many processes.
        thread.start()
        self._threads[name] = thread
        return name

    def delete(self, name):
        self._threads.pop(name).waiting.put(None)

    def waiting_of(self, name):
        """Returns the queue of a subshell; None if there is no such subshell."""
        thread = self._threads.get(name)
        return None if thread is None else thread.waiting

    def list_subshell(self):
        return list(self._threads)

    def subshell_id_from_thread_id(self, ident):
        if ident == self.parent_thread.ident:
            return None
        for name, thread in [*self._threads.items()]:
            if thread.ident == ident:
                return name
        raise RuntimeError(f"Thread id {ident!r} does not correspond to a subshell of this kernel")


def drive(coroutine):
    """Runs a coroutine that awaits nothing, as ipykernel's handlers of control requests."""
    if not inspect.iscoroutine(coroutine):
        return
    try:
        coroutine.send(None)
    except StopIteration:
        return
    coroutine.close()
    raise RuntimeError("It awaits something, and there is no event loop for that")


@types.coroutine
def resumed(coroutine):
    """Continues a coroutine that was started without a task."""
    awaited = None
    while True:
        try:
            value = yield awaited
        except BaseException as error:
            # Without the frame of this function, which the coroutine does not have.
            trace: Any = sys.exc_info()[2]
            step = functools.partial(coroutine.throw, BaseException.with_traceback(error, trace.tb_next))
        else:
            step = functools.partial(coroutine.send, value)
        try:
            awaited = step()
        except StopIteration as end:
            return end.value
