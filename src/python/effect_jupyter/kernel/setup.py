"""Sets up a Python kernel for programs: plain text, a constant working directory, and environment variables.

Our kernels import this module. To others the client sends this text, which runs before the first execution in a separate
namespace, so that the user does not see its names. Of a kernel without IPython only the parts that every Python has are
set up.
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
except ImportError:

    def get_ipython() -> Any:
        return None


# Since `patch`.
_shell: Any = None
_kernel: Any = None


def _speed_up(kernel):
    from IPython.core.compilerop import CachingCompiler

    # ipykernel names cells for its debugger by a hash in pure Python, which takes a microsecond for each byte of code.
    _shell.compile = CachingCompiler()
    # ipykernel delays each reply by half a millisecond in favor of output, which is not needed: the client waits for
    # both.
    if isinstance(getattr(kernel, "_execute_sleep", None), float):
        kernel._execute_sleep = 0.0


_variables = {}


def _send_variables(comm, message):
    """Answers requests for variables outside of executions, which would run the hooks of the user."""
    if "variables_of" not in _variables:
        exec(message["content"]["data"]["source"], _variables)
    comm.send(_variables["variables_of"](_shell))
    comm.close()


class _Forgetful(dict):
    """Replaces the record of all output that IPython 9 keeps for `%notebook` until the kernel ends."""

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
    """Replaces lone surrogates in the texts of a value: they cannot be sent."""
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
    """Returns the text of an exception, or the placeholder that Python uses if `str` raises."""
    try:
        return str(error)
    except BaseException:
        return "<exception str() failed>"


def _show_always(showtraceback):
    """Shows an exception even if `str` of it raises."""

    @functools.wraps(showtraceback)
    def show(self, kind, error, lines):
        return showtraceback(self, kind, _text_of(error), lines)

    return show


def _result_after(before):
    """Returns the result of code that IPython has run since the given one, if there is one."""
    result = getattr(_shell, "last_execution_result", None)
    return None if result is before else result


def _answer_always(execute):
    """Runs code and sends a reply even if IPython fails: the client waits for it."""

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
    """Runs code and returns a result even if IPython raises, which may end the kernel in a task."""

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
    """Accepts code that cannot be compiled, so that running it reports the reason."""

    @functools.wraps(should_run_async)
    def decide(*everything, **named):
        try:
            return should_run_async(*everything, **named)
        except Exception:
            return False

    return decide


def _end_well(kernel):
    """Patches IPython so that the reply of every execution states how the code ended."""
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
    """Shows an exception even if the code has deleted the current directory, which IPython reads."""

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
            # Reported once: the condition may persist.
            if complaint != str(error):
                complaint = str(error)
                say(f"working directory {working_dir} is gone and cannot be made again: {error}")
            return
        complaint = None
        say(f"working directory {'restored to' if is_there else 'was deleted; made an empty one at'} {working_dir}")

    os.chdir(working_dir)
    if _shell is not None:
        _shell.events.register("post_run_cell", restore)


def _note_cell(start):
    """Records the cell that starts a thread, or submits work to one."""

    @functools.wraps(start)
    def noted(self, *everything, **named):
        self._effect_jupyter_parent = _shell.get_parent()
        return start(self, *everything, **named)

    return noted


def _output_for_cell(run):
    """Attributes the output of a thread to the cell that started it, even during a later cell."""

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


def _tell_what_runs(parent_header):
    """Returns the request of an output, and the one that runs on the main thread, which may be waiting for it."""

    def get(self):
        header = parent_header.fget(self)
        if threading.current_thread() is not threading.main_thread():
            return header  # output without a request stays without one
        if not header:
            return self._parent_header_global  # of the event loop itself
        running = self._parent_header_global.get("msg_id")
        return header if running == header.get("msg_id") else {**header, "effect_jupyter_during": running}

    return property(get, parent_header.fset)


def _is_ipykernel():
    return any(kind.__module__.startswith("ipykernel.") for kind in type(_kernel).__mro__)


def patch():
    """Patches the shell, once: a kernel that imports this module may be sent this text as well."""
    global _shell, _kernel
    _shell = get_ipython()
    _kernel = getattr(_shell, "kernel", None)
    if _shell is None or hasattr(_shell, "effect_jupyter"):
        return
    _shell.effect_jupyter = True
    _shell.run_line_magic("colors", "nocolor")
    if _is_ipykernel():
        _speed_up(_kernel)
    _end_well(_kernel)
    if hasattr(_kernel, "comm_manager"):
        _kernel.comm_manager.register_target("effect_jupyter_variables", _send_variables)


def set_up():
    """Sets up this process, which has a patched shell. Its event loop is that of this thread."""
    # Programs that the code starts must not color their output either.
    for name in ("CLICOLOR", "CLICOLOR_FORCE", "FORCE_COLOR", "LS_COLORS"):
        os.environ.pop(name, None)
    os.environ["NO_COLOR"] = "1"
    os.environ["TERM"] = "dumb"
    if _is_ipykernel():
        # ipykernel cancels `await` on SIGINT by a callback, which does not wake an event loop that waits. With a signal
        # handler of the loop, for any signal, every signal wakes it.
        asyncio.get_event_loop().add_signal_handler(signal.SIGURG, lambda: None)
    if _shell is not None:
        if str(getattr(_shell, "colors", "")).lower() != "nocolor":
            # Startup files and configured lines run after `patch`.
            _shell.run_line_magic("colors", "nocolor")
        _keep_no_output()
    session: Any = getattr(_kernel, "session", None)
    if callable(getattr(session, "pack", None)):
        session.pack = _pack_well_formed(session.pack)
    parts = (sys.stdout, sys.stderr, getattr(_shell, "display_pub", None))
    for kind in {owner for part in parts for owner in type(part).__mro__}:
        header = vars(kind).get("parent_header")
        if (
            isinstance(header, property)
            and header.fget is not None
            and "_parent_header_global" in header.fget.__code__.co_names
        ):
            kind.parent_header = _tell_what_runs(header)
    # These are private parts of Python and ipykernel: if they differ, the original behavior stays.
    if hasattr(_shell, "set_thread_parent") and hasattr(_shell, "reset_thread_parent"):
        for kind, begin, run in (
            (threading.Thread, "start", "_bootstrap_inner"),
            (getattr(concurrent.futures.thread, "_WorkItem", None), "__init__", "run"),
        ):
            if kind is not None and hasattr(kind, run):
                setattr(kind, begin, _note_cell(getattr(kind, begin)))
                setattr(kind, run, _output_for_cell(getattr(kind, run)))


def use(options):
    """Uses the options of the client: {"workingDir": str | None, "makeWorkingDir": bool, "env": {str: str}}."""
    # Remote servers pass none of the variables to their kernels, or only some.
    os.environ.update(options["env"])
    if "TZ" in options["env"] and hasattr(time, "tzset"):
        time.tzset()
    if options["workingDir"] is not None:
        if options["makeWorkingDir"]:
            os.makedirs(options["workingDir"], exist_ok=True)
        _keep_working_dir(os.path.realpath(options["workingDir"]))
