"""Starts a kernel in its sandbox. Runs outside of it, as the gateway's user, and becomes the sandbox.

Usage: sandbox_launcher.py CONNECTION_FILE, with a file of JSON named by EFFECT_JUPYTER_LAUNCH:
{"command": the sandboxed command for a shell, "ownDir": the kernel's folder, "user": {"uid", "gid"} or null,
"paths": what that user has to see, "pidFile": see `sandbox_macos.py`}.
Standard library only; started with `python -I -S`.
"""

import array
import json
import os
import socket
import sys

sys.path.append(os.path.dirname(os.path.abspath(__file__)))
sys.dont_write_bytecode = True

import sandbox_macos  # noqa: E402
from sandbox_user import become  # noqa: E402

CHANNELS = ("shell_port", "iopub_port", "stdin_port", "control_port", "hb_port")


def listen(connection):
    """The kernel's channels; the sandbox could not create them."""
    sockets = []
    for channel in CHANNELS:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(f"{connection['ip']}-{connection[channel]}")
        listener.listen(100)
        # ZeroMQ accepts until there is nobody left.
        listener.setblocking(False)
        sockets.append(listener)
    return sockets


def give(listeners, connection):
    """The end of a connection that holds the sockets and the description, to be standard output."""
    here, there = socket.socketpair()
    descriptors = array.array("i", [listener.fileno() for listener in listeners])
    here.sendmsg([json.dumps(connection).encode()], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)])
    return there


def main():
    with open(sys.argv[1]) as file:
        connection = json.load(file)
    path = os.environ.pop("EFFECT_JUPYTER_LAUNCH")
    with open(path) as file:
        launch = json.load(file)
    os.unlink(path)
    environment = dict(os.environ)
    if launch["user"] is not None:
        environment["HOME"] = os.path.join(launch["ownDir"], "home")
    if sandbox_macos.IS_HERE:
        sandbox_macos.run(launch, sys.argv[1], environment, lambda: become(launch["user"], []))
    os.umask(0o077)
    there = give(listen(connection), connection)
    os.umask(0o022)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    # Not standard input: with a socket there, bash takes itself for a remote shell and reads ~/.bashrc.
    os.dup2(there.fileno(), 1)
    if launch["user"] is not None:
        become(launch["user"], launch["paths"])
    # All that is open here closes on exec, but for the three standard streams.
    os.execve("/bin/sh", ["/bin/sh", "-c", f"exec {launch['command']}"], environment)


main()
