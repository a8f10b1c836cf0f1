"""Makes a fresh Python kernel fit for programs: plain text, a working directory that stays, its environment.

Runs inside the kernel before the first execution, in a namespace of its own, so that none of its names
reach the user. `options` is put into that namespace: {"workingDir": str | None, "env": {str: str}}. A kernel that is
not IPython gets what every Python has.
"""

import asyncio
import os
import signal
import time

try:
    from IPython import get_ipython

    _shell = get_ipython()
except ImportError:
    _shell = None

# Servers that are not ours give their kernels nothing of it, or a part.
os.environ.update(options["env"])  # noqa: F821
if "TZ" in options["env"] and hasattr(time, "tzset"):  # noqa: F821
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


def _tell_variables(comm, message):
    """Runs beside the code of the user, which executions of ours would not: they have hooks."""
    if "look" not in _variables:
        exec(message["content"]["data"]["source"], _variables)
    comm.send(_variables["look"](_shell))
    comm.close()


def _keep_working_dir(working_dir):
    os.chdir(working_dir)

    def restore(_result=None):
        try:
            current = os.getcwd()
        except FileNotFoundError:
            current = None
        if current != working_dir:
            os.chdir(working_dir)
            print(f"[effect-jupyter] working directory restored to {working_dir}")

    if _shell is not None:
        _shell.events.register("post_run_cell", restore)


if _shell is not None:
    _shell.run_line_magic("colors", "nocolor")
    _kernel = getattr(_shell, "kernel", None)
    if any(kind.__module__.startswith("ipykernel.") for kind in type(_kernel).__mro__):
        _speed_up(_kernel)
    if hasattr(_kernel, "comm_manager"):
        _kernel.comm_manager.register_target("effect_jupyter_variables", _tell_variables)

if options["workingDir"] is not None:  # noqa: F821
    _keep_working_dir(os.path.realpath(options["workingDir"]))  # noqa: F821
