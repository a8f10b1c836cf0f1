"""Creates a virtual environment once for all processes that request it at the same time.

Usage: provision.py DIRECTORY REQUIREMENT ...

Prints the interpreter's path to standard output and its progress to standard error. The environment is built in a new
folder in DIRECTORY; the file `current` has its name if it is complete. An incomplete build is removed by the next one.
Ends with status 73 if DIRECTORY is not writable. Standard library only.
"""

import os
import sys

# The folder that contains only this package, instead of the folder of this file.
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

# Settings of the user that install packages elsewhere; the last of the options overrides a settings file.
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
    """Ends a program that is started here when this process is killed."""
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def end_when_input_closes():
    """Ends this process and its descendants when standard input closes, as when the program has ended."""
    while os.read(0, 512) != b"":
        pass
    os.killpg(0, signal.SIGKILL)


def run(*command, temporary):
    # The settings of the user determine the source of packages, but not their destination.
    env = {name: value for name, value in os.environ.items() if not ELSEWHERE.fullmatch(name)}
    subprocess.run(
        command,
        check=True,
        # The default folder may be read-only.
        env={**env, "TMPDIR": temporary},
        # Files in the working directory of the program must not act as modules or settings of an installer.
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,
        # `preexec_fn` is safe: this process has one other thread, which only reads.
        preexec_fn=die_with_parent,
    )


def absolute(requirement):
    """Returns a requirement with an absolute path if it is a path."""
    return os.path.abspath(requirement) if requirement.startswith(".") else requirement


def build(environment, requirements):
    python = os.path.join(environment, "bin", "python")
    uv = shutil.which("uv")
    # Not a link, whose target may become another version with another folder of packages.
    base = os.path.realpath(sys.executable)
    requirements = [absolute(requirement) for requirement in requirements]
    temporary = os.path.join(environment, "tmp")
    os.mkdir(temporary)
    if uv is not None:
        run(uv, "venv", "--quiet", "--allow-existing", "--python", base, environment, temporary=temporary)
        # Code may install packages: `ensurepip` installs pip without an index.
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
        # Sandboxed kernels of root run as another user.
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
    # Raises SystemExit, so that an incomplete build is removed.
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
