"""Starts a kernel in its sandbox. Runs outside of it, as the gateway's user, and becomes the sandbox.

Usage: launcher.py CONNECTION_FILE, with its orders from standard input in the format of the module `marshal`, which
takes no time to load: {"command": bubblewrap, "options": its options, "inner": the words of what runs in it, "ownDir":
the kernel's folder, "user": {"uid", "gid"} or None, "paths": what that user has to see, "placeholders": [path, whether
it is a directory] of what has to be there, "sockets": the paths of the kernel's channels, "writable": what it may write, "inside": the JSON of what
`sandboxed_kernel.py` needs, "pidFile" and "environment": see `macos.py`}. Standard library only; started with
`python -I -S` while its orders are still being made.
"""

import os
import sys

# The folder that contains only this package, instead of the folder of this file.
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path[: not getattr(sys.flags, "safe_path", sys.flags.isolated)] = [ROOT]
sys.dont_write_bytecode = True

# `socket` and `json` take longer than all the rest.
import _socket
import array
import marshal

from effect_jupyter.sandbox import mount_points
from effect_jupyter.sandbox.user import drop_privileges

# The options may be hundreds of mounts.
MAX_WORDS = 600


def listen(paths):
    """Creates the sockets of the kernel's channels, which the sandbox does not allow."""
    sockets = []
    for path in paths:
        listener = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        listener.bind(path)
        listener.listen(100)
        # ZeroMQ accepts connections until none is waiting, and must not block then.
        listener.setblocking(False)
        sockets.append(listener)
    return sockets


def take_own():
    """Returns the listener of the gateway for the client of the kernel, if there is one."""
    descriptor = os.environ.pop("EFFECT_JUPYTER_LISTENER", None)
    return [] if descriptor is None else [_socket.socket(fileno=int(descriptor))]


def give(listeners, connection):
    """Returns a socket that holds the listeners and the description, which becomes standard output."""
    here, there = _socket.socketpair()
    descriptors = array.array("i", [listener.fileno() for listener in listeners])
    here.sendmsg([connection], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, descriptors)])
    return there


def with_options(launch, options):
    """Returns the command. All users can read its words, so that options with secrets are in an unnamed file."""
    file = os.memfd_create("options", 0)
    os.write(file, "".join(f"{option}\0" for option in options).encode())
    os.lseek(file, 0, os.SEEK_SET)
    return [*launch["command"], "--args", str(file), "--", *launch["inner"]]


def main():
    with open(sys.argv[1], "rb") as file:
        connection = file.read()
    with open(0, "rb") as orders:
        launch = marshal.load(orders)
    own = take_own()
    user, environment = launch["user"], dict(os.environ)
    if user is not None:
        environment["HOME"] = os.path.join(launch["ownDir"], "home")
    # These are secrets as well.
    environment["EFFECT_JUPYTER_INSIDE"] = launch["inside"]
    if sys.platform == "darwin":
        from effect_jupyter.sandbox import macos

        for listener in own:
            listener.close()
        macos.run(launch, connection, environment, lambda: drop_privileges(user, []))
    os.umask(0o077)
    there = give([*listen(launch["sockets"]), *own], connection)
    for listener in own:
        listener.close()
    os.umask(0o022)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    # Not standard input: if that is a socket, bash assumes a remote shell and reads ~/.bashrc.
    os.dup2(there.fileno(), 1)
    if user is not None:
        drop_privileges(user, launch["paths"])
    for path, is_directory in launch["placeholders"]:
        mount_points.make(path, is_directory)
    options = launch["options"]
    if len(options) > MAX_WORDS:
        from effect_jupyter.sandbox import mounts

        try:
            options = mounts.make_ahead(options, launch["writable"])
        except RuntimeError as error:
            sys.exit(str(error))
    # Other descriptors than those of the standard streams and the options close on exec.
    command = with_options(launch, options)
    os.execve(command[0], command, environment)


main()
