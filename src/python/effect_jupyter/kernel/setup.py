"""Makes a fresh Python kernel fit for programs: plain text, a working directory that stays, its environment.

Runs inside the kernel before the first execution, in a namespace of its own, so that none of its names
reach the user. `options` is put into that namespace: {"workingDir": str | None, "makeWorkingDir": bool,
"env": {str: str}}. A kernel that is not IPython gets what every Python has.
"""

from __future__ import annotations

import asyncio
import concurrent.futures.thread
import contextlib
import functools
import os
import signal
import sys
import threading
import time
from typing import Any

try:
    from IPython import get_ipython

    _shell: Any = get_ipython()
except ImportError:
    _shell = None

options: dict[str, Any] = globals()["options"]

# Servers that are not ours give their kernels nothing of it, or a part.
os.environ.update(options["env"])
if "TZ" in options["env"] and hasattr(time, "tzset"):
    time.tzset()

# Programs that the code starts must not colour their output either.
for _name in ("CLICOLOR", "CLICOLOR_FORCE", "FORCE_COLOR", "LS_COLORS"):
    os.environ.pop(_name, None)
os.environ["NO_COLOR"] = "1"
os.environ["TERM"] = "dumb"


def _speed_up(kernel):
    from IPython.core.compilerop import CachingCompiler

    # ipykernel names cells for its debugger by a hash in pure Python: a microsecond and more for every byte of code.
    _shell.compile = CachingCompiler()
    # ipykernel puts off each reply by half a millisecond, to let output overtake it; whoever reads us waits for both.
    if isinstance(getattr(kernel, "_execute_sleep", None), float):
        kernel._execute_sleep = 0.0
    # ipykernel cancels `await` on SIGINT by a callback, for which nobody wakes an event loop that is asleep. A
    # signal handler of the loop's own, for whatever signal, makes every signal wake it.
    asyncio.get_event_loop().add_signal_handler(signal.SIGURG, lambda: None)


_variables = {}


def _send_variables(comm, message):
    """Runs beside the code of the user, which executions of ours would not: they have hooks."""
    if "look" not in _variables:
        exec(message["content"]["data"]["source"], _variables)
    comm.send(_variables["look"](_shell))
    comm.close()


class _Forgetful(dict):
    """What IPython 9 would keep of all output for as long as the kernel lives, for `%notebook` alone."""

    def __missing__(self, _key):
        return []

    def __setitem__(self, _key, _value):
        pass

    def setdefault(self, _key, default=None):
        return default


def _keep_no_output():
    if hasattr(_shell, "_tee"):
        _shell._tee = lambda channel: contextlib.nullcontext()
    for name in ("outputs", "exceptions"):
        if isinstance(getattr(_shell.history_manager, name, None), dict):
            setattr(_shell.history_manager, name, _Forgetful())


def _well_formed(value):
    """A value whose texts have no halves of surrogate pairs, which cannot be sent."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        return {_well_formed(key): _well_formed(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_well_formed(item) for item in value]
    return value


def _pack_well_formed(pack):
    @functools.wraps(pack)
    def packed(value):
        try:
            return pack(value)
        except UnicodeEncodeError:
            return pack(_well_formed(value))

    return packed


def _text_of(error):
    """Its text, or what Python's own tracebacks have in place of one that cannot be made."""
    try:
        return str(error)
    except BaseException:
        return "<exception str() failed>"


def _show_always(showtraceback):
    """Shows an exception also where its text cannot be made."""

    @functools.wraps(showtraceback)
    def show(self, kind, error, lines):
        return showtraceback(self, kind, _text_of(error), lines)

    return show


def _result_after(before):
    """The result of code that IPython has run since that one, if it came so far."""
    result = getattr(_shell, "last_execution_result", None)
    return None if result is before else result


def _answer_always(execute):
    """Answers also where IPython's own way to run code fails: without a reply nobody knows how the code ended."""

    @functools.wraps(execute)
    async def answer(*everything, **named):
        before = getattr(_shell, "last_execution_result", None)
        try:
            return await execute(*everything, **named)
        except BaseException as failure:
            if isinstance(failure, (asyncio.CancelledError, GeneratorExit)):
                raise
            result = _result_after(before)
            error = failure if result is None else result.error_before_exec or result.error_in_exec or failure
            if error is failure:
                _shell._last_traceback = None
                _shell.showtraceback()
            return {
                "status": "error",
                "ename": type(error).__name__,
                "evalue": _text_of(error),
                "traceback": _shell._last_traceback or [],
                "execution_count": _shell.execution_count - 1,
                "user_expressions": {},
                "payload": [],
            }

    return answer


def _end_always(run_cell):
    """Gives a result where IPython lets an exception out, which in a task may end the kernel."""

    from IPython.core.interactiveshell import ExecutionResult

    @functools.wraps(run_cell)
    async def run(*everything, **named):
        __tracebackhide__ = True
        before = getattr(_shell, "last_execution_result", None)
        try:
            return await run_cell(*everything, **named)
        except (Exception, KeyboardInterrupt, SystemExit) as error:
            result = _result_after(before)
            if result is not None and not result.success:
                return result
            result = ExecutionResult(None)
            result.error_in_exec = error
            _shell.showtraceback()
            return result

    return run


def _decide_always(should_run_async):
    """Leaves code that cannot be compiled to what runs it, which says why."""

    @functools.wraps(should_run_async)
    def decide(*everything, **named):
        try:
            return should_run_async(*everything, **named)
        except Exception:
            return False

    return decide


def _end_well(kernel):
    """Makes every execution end with what the code did."""
    if callable(getattr(getattr(kernel, "session", None), "pack", None)):
        kernel.session.pack = _pack_well_formed(kernel.session.pack)
    if asyncio.iscoroutinefunction(getattr(kernel, "do_execute", None)):
        kernel.do_execute = _answer_always(kernel.do_execute)
    if callable(getattr(type(_shell), "_showtraceback", None)):
        type(_shell)._showtraceback = _show_always(type(_shell)._showtraceback)
    if asyncio.iscoroutinefunction(getattr(_shell, "run_cell_async", None)):
        _shell.run_cell_async = _end_always(_shell.run_cell_async)
    if callable(getattr(_shell, "should_run_async", None)):
        _shell.should_run_async = _decide_always(_shell.should_run_async)
    for name in ("showtraceback", "showsyntaxerror"):
        setattr(_shell, name, _from_somewhere(getattr(_shell, name)))


def _is_somewhere():
    try:
        return bool(os.getcwd())
    except OSError:
        return False


def _from_somewhere(show):
    """Shows an exception; the code may have deleted the current directory, which IPython looks at."""

    @functools.wraps(show)
    def shown(*everything, **named):
        with contextlib.ExitStack() as stack:
            if not _is_somewhere():
                with contextlib.suppress(OSError):
                    there = os.open(".", os.O_RDONLY)
                    stack.callback(os.close, there)
                    stack.callback(os.fchdir, there)
                    os.chdir("/")
            return show(*everything, **named)

    return shown


def _keep_working_dir(working_dir):
    complaint = None

    def say(text):
        print(f"[effect-jupyter] {text}")

    def restore(_result=None):
        nonlocal complaint
        if _is_somewhere() and os.getcwd() == working_dir:
            return
        try:
            is_there = os.path.isdir(working_dir)
            os.makedirs(working_dir, exist_ok=True)
            os.chdir(working_dir)
        except OSError as error:
            # Once: it may stay so for long.
            if complaint != str(error):
                complaint = str(error)
                say(f"working directory {working_dir} is gone and cannot be made again: {error}")
            return
        complaint = None
        say(f"working directory {'restored to' if is_there else 'was deleted; made an empty one at'} {working_dir}")

    os.chdir(working_dir)
    if _shell is not None:
        _shell.events.register("post_run_cell", restore)


if _shell is not None:
    _shell.run_line_magic("colors", "nocolor")
    _kernel: Any = getattr(_shell, "kernel", None)
    if any(kind.__module__.startswith("ipykernel.") for kind in type(_kernel).__mro__):
        _speed_up(_kernel)
    _keep_no_output()
    _end_well(_kernel)
    if hasattr(_kernel, "comm_manager"):
        _kernel.comm_manager.register_target("effect_jupyter_variables", _send_variables)

if options["workingDir"] is not None:
    if options["makeWorkingDir"]:
        os.makedirs(options["workingDir"], exist_ok=True)
    _keep_working_dir(os.path.realpath(options["workingDir"]))


def _note_cell(start):
    """Remembers the cell that starts a thread, or hands work to one."""

    @functools.wraps(start)
    def noted(self, *everything, **named):
        self._effect_jupyter_parent = _shell.get_parent()
        return start(self, *everything, **named)

    return noted


def _output_for_cell(run):
    """What a thread puts out is of the cell that started it, whichever runs by then."""

    @functools.wraps(run)
    def run_for_cell(self, *everything, **named):
        parent = self.__dict__.pop("_effect_jupyter_parent", None)
        if parent is None:
            return run(self, *everything, **named)
        tokens = _shell.set_thread_parent(parent)
        try:
            return run(self, *everything, **named)
        finally:
            _shell.reset_thread_parent(tokens)

    return run_for_cell


# These are private parts of Python and ipykernel: where they are others, its own way will do.
if hasattr(_shell, "set_thread_parent") and hasattr(_shell, "reset_thread_parent"):
    for _class, _begin, _run in (
        (threading.Thread, "start", "_bootstrap_inner"),
        (getattr(concurrent.futures.thread, "_WorkItem", None), "__init__", "run"),
    ):
        if _class is not None and hasattr(_class, _run):
            setattr(_class, _begin, _note_cell(getattr(_class, _begin)))
            setattr(_class, _run, _output_for_cell(getattr(_class, _run)))


def _tell_what_runs(parent_header):
    """The request that something is put out for; if another runs on the main thread, which may wait for it, that too."""

    def get(self):
        header = parent_header.fget(self)
        if threading.current_thread() is not threading.main_thread():
            return header  # what is of no request stays so
        if not header:
            return self._parent_header_global  # of the event loop itself
        running = self._parent_header_global.get("msg_id")
        return header if running == header.get("msg_id") else {**header, "effect_jupyter_during": running}

    return property(get, parent_header.fset)


_parts = (sys.stdout, sys.stderr, getattr(_shell, "display_pub", None))
for _class in {_owner for _part in _parts for _owner in type(_part).__mro__}:
    _property = vars(_class).get("parent_header")
    if (
        isinstance(_property, property)
        and _property.fget is not None
        and "_parent_header_global" in _property.fget.__code__.co_names
    ):
        _class.parent_header = _tell_what_runs(_property)
