"""Makes a virtual environment, once, however many processes ask for it at the same time.

Usage: provision.py DIRECTORY REQUIREMENT ...

Prints the interpreter's path to standard output and what it is doing to standard error. The environment is
built in a folder of its own below DIRECTORY; the file `current` names it when, and only when, it is
complete. A build that was cut short is never looked at again and is removed by the next one. Ends with status 73
if DIRECTORY cannot be written to. Standard library only.
"""

import os
import sys

# The folder that has nothing but our package, in place of the one of this file.
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path[: not getattr(sys.flags, "safe_path", sys.flags.isolated)] = [ROOT]
sys.dont_write_bytecode = True

import fcntl
import importlib.util
import re
import shutil
import signal
import subprocess
import tempfile
import threading

from effect_jupyter.system import PR_SET_PDEATHSIG, prctl, remove_tree

UNWRITABLE = 73

# Settings of the user that lead packages elsewhere; the last of the options takes back what a file of settings says.
ELSEWHERE = re.compile("PYTHON.*|PIP_(PREFIX|ROOT|TARGET|USER)|UV_(SYSTEM_PYTHON|TARGET|PREFIX)")
INTO_THE_ENVIRONMENT = ["--no-user", "--target="]

# Prints the requirements whose distributions are not in the environment.
CHECK = """
import importlib.metadata, re, sys, sysconfig
path = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
for requirement in sys.argv[1:]:
    name = re.match(r"[A-Za-z0-9][A-Za-z0-9._-]*(?=\\s*($|[<>=!~;,\\[ (]))", requirement)
    if name and not any(importlib.metadata.distributions(name=name[0], path=path)):
        sys.exit(f"{requirement} was not installed into {sys.prefix}; check the settings of pip and uv")
"""


def die_with_parent():
    """Programs started here must not go on writing when this process is killed."""
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def end_when_input_closes():
    """Standard input closes when the program that asked is gone: stop, with everything that was started."""
    while os.read(0, 512) != b"":
        pass
    os.killpg(0, signal.SIGKILL)


def run(*command, temporary):
    # Where packages come from is for the settings of the user to say, where they go is not.
    env = {name: value for name, value in os.environ.items() if not ELSEWHERE.fullmatch(name)}
    subprocess.run(
        command,
        check=True,
        # The usual place may be read-only.
        env={**env, "TMPDIR": temporary},
        # What lies in the working directory of the program is no module or setting of an installer.
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,
        # Safe here: this process has one other thread, which only reads.
        preexec_fn=die_with_parent,
    )


def absolute(requirement):
    """A requirement that is a path, seen from elsewhere."""
    return os.path.abspath(requirement) if requirement.startswith(".") else requirement


def build(environment, requirements):
    python = os.path.join(environment, "bin", "python")
    uv = shutil.which("uv")
    # Not by a link that another version may move under: its packages would be in another folder.
    base = os.path.realpath(sys.executable)
    requirements = [absolute(requirement) for requirement in requirements]
    temporary = os.path.join(environment, "tmp")
    os.mkdir(temporary)
    if uv is not None:
        run(uv, "venv", "--quiet", "--allow-existing", "--python", base, environment, temporary=temporary)
        # Code may install packages: the interpreter brings its own pip, without any index.
        if importlib.util.find_spec("ensurepip") is None:
            requirements.append("pip")
        else:
            run(python, "-I", "-m", "ensurepip", "--default-pip", temporary=temporary)
        run(uv, "pip", "install", "--python", python, *requirements, temporary=temporary)
    else:
        run(base, "-I", "-m", "venv", environment, temporary=temporary)
        options = ["--disable-pip-version-check", "--no-input", *INTO_THE_ENVIRONMENT]
        run(python, "-I", "-m", "pip", "install", *options, *requirements, temporary=temporary)
    run(python, "-I", "-c", CHECK, *requirements, temporary=temporary)
    remove_tree(temporary)
    return python


def current(directory):
    try:
        with open(os.path.join(directory, "current")) as file:
            python = file.read()
    except FileNotFoundError:
        return None
    return python if os.path.exists(python) else None


def provision(directory, requirements):
    os.makedirs(directory, exist_ok=True)
    with open(os.path.join(directory, "lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        python = current(directory)
        if python is not None:
            return python
        for name in os.listdir(directory):
            if name.startswith("build-"):
                remove_tree(os.path.join(directory, name))
        environment = tempfile.mkdtemp(prefix="build-", dir=directory)
        # Sandboxed kernels of root run as somebody else.
        os.chmod(environment, 0o755)
        try:
            python = build(environment, requirements)
        except BaseException:
            remove_tree(environment)
            raise
        draft = os.path.join(environment, "current")
        with open(draft, "w") as file:
            file.write(python)
            file.flush()
            os.fsync(file.fileno())
        os.rename(draft, os.path.join(directory, "current"))
        return python


def main():
    threading.Thread(target=end_when_input_closes, daemon=True).start()
    # Ends through the exception handlers, so that a build under way is removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("Interrupted"))
    directory, *requirements = sys.argv[1:]
    try:
        print(provision(directory, requirements))
    except subprocess.CalledProcessError as error:
        sys.exit(f"{os.path.basename(error.cmd[0])} ended with status {error.returncode}")
    except OSError as error:
        print(error, file=sys.stderr)
        sys.exit(UNWRITABLE)


main()
