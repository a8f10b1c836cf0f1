"""The sandbox on macOS, which is Seatbelt. It is not tested in CI. Standard library only.

There are no namespaces: a kernel makes its sockets itself, at the five paths that its profile names, finds its
connection file in its own folder, and lives no longer than its gateway because its launcher stays and watches.
"""

import os
import shlex
import signal
import sys

IS_HERE = sys.platform == "darwin"
SANDBOX_EXEC = "/usr/bin/sandbox-exec"
CONNECTION_FILE = "connection.json"


def smallest_sandbox():
    """Checks that a program can run in a sandbox without restrictions."""
    return [SANDBOX_EXEC, "-p", "(version 1)(allow default)"]


def sockets(runtime_dir, kernel_id):
    """Returns the paths of a kernel's sockets, which Jupyter counts from one."""
    return [os.path.join(runtime_dir, f"kernel-{kernel_id}-ipc-{number}") for number in range(1, 6)]


def split(command):
    """Splits a command line with `env` into variables and words: all users can read the words of a command."""
    words = shlex.split(command)
    variables = {}
    if os.path.basename(words[0]) == "env" and "=" in words[1]:
        words.pop(0)
        while "=" in words[0]:
            name, _, value = words.pop(0).partition("=")
            variables[name] = value
    return variables, words


def run(launch, connection, environment, drop_privileges):
    """Runs the sandboxed command until the gateway ends, and exits with its status."""
    import subprocess

    environment = {**environment, **launch["environment"]}

    gateway = os.getppid()
    connection_file = os.path.join(launch["ownDir"], CONNECTION_FILE)
    with os.fdopen(os.open(connection_file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
        file.write(connection)
    if launch["user"] is not None:
        os.chown(connection_file, launch["user"]["uid"], launch["user"]["gid"])
    kernel = subprocess.Popen(
        launch["command"],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=drop_privileges if launch["user"] is not None else None,
    )
    with open(launch["pidFile"], "w") as file:
        file.write(str(kernel.pid))
    while True:
        try:
            sys.exit(kernel.wait(0.5))
        except subprocess.TimeoutExpired:
            if os.getppid() != gateway:
                end(launch["pidFile"])


def end(pid_file):
    """Kills the processes of a launcher that was killed."""
    try:
        with open(pid_file) as file:
            os.killpg(int(file.read()), signal.SIGKILL)
        os.unlink(pid_file)
    except (OSError, ValueError):
        pass  # it did not start, or has ended
