"""The environment variables of kernels: those of an activated environment, and folders that can be written to.

Standard library only, and little of it: the zygote begins before anything else is loaded.
"""

import os
import sys

# The commands of an interpreter and its installer.
COMMANDS = {"python": "", "python3": "", "pip": "-m pip", "pip3": "-m pip"}


class Environment:
    """The environment of all kernels of a gateway; `runtime_dir` is None if kernels cannot see it."""

    def __init__(self, runtime_dir):
        self._runtime_dir = runtime_dir
        self._commands = None if runtime_dir is None else write_commands(os.path.join(runtime_dir, "bin"))

    def of_kernel(self, env, python):
        """Returns `env` for a kernel that `python` runs: its folder comes first in PATH."""
        changed = dict(env)
        folder = os.path.dirname(python)
        if folder:
            first = [folder, self._commands] if python == sys.executable and self._commands else [folder]
            others = [path for path in env.get("PATH", os.defpath).split(os.pathsep) if path not in first]
            changed["PATH"] = os.pathsep.join([*first, *others])
            prefix = os.path.dirname(folder)
            if os.path.isfile(os.path.join(prefix, "pyvenv.cfg")):
                changed.setdefault("VIRTUAL_ENV", prefix)
        return changed if self._runtime_dir is None else self._with_caches(changed)

    def _with_caches(self, env):
        """Adds folders for caches of libraries, which otherwise warn or work without a cache."""
        home = env.get("HOME") or os.path.expanduser("~")
        for name, variable, default in (
            ("cache", "XDG_CACHE_HOME", os.path.join(home, ".cache")),
            ("matplotlib", "MPLCONFIGDIR", env.get("XDG_CONFIG_HOME") or os.path.join(home, ".config")),
        ):
            if not is_writable(env.get(variable) or default):
                env[variable] = os.path.join(self._runtime_dir, name)
                os.makedirs(env[variable], exist_ok=True)
        return env


def write_commands(folder):
    """Creates the commands that the folder of this interpreter lacks; returns None if it has all of them.

    An interpreter of the system is often `python3` only, and the `pip` on the PATH that of another.
    """
    beside = os.path.dirname(sys.executable)
    missing = [name for name in COMMANDS if not os.path.exists(os.path.join(beside, name))]
    if not missing:
        return None
    os.mkdir(folder)
    for name in missing:
        path = os.path.join(folder, name)
        with open(path, "w") as file:
            file.write(f'#!/bin/sh\nexec "{sys.executable}" {COMMANDS[name]} "$@"\n')
        os.chmod(path, 0o755)
    return folder


def is_writable(folder):
    """Tells whether a file can be created in a folder, or in its nearest parent if it does not exist."""
    while not os.path.isdir(folder):
        if os.path.lexists(folder) or folder == os.path.dirname(folder):
            return False
        folder = os.path.dirname(folder)
    # Permissions are not enough: a file system may be mounted read-only.
    path = os.path.join(folder, f".effect-jupyter-{os.getpid()}")
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        os.unlink(path)
        return True
    except OSError:
        return False
