"""Changes the command of bubblewrap that srt makes. Standard library only."""

import os
import re
import shlex
from collections.abc import Iterable, Iterator

# Isolation besides that of srt: no shared memory, semaphores or name of the host.
ISOLATED = ["--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"]

# The number of arguments of the options of bubblewrap that srt uses.
ARGUMENTS = {
    **dict.fromkeys(("--bind", "--ro-bind", "--dev-bind", "--setenv"), 2),
    **dict.fromkeys(("--tmpfs", "--dev", "--proc", "--unsetenv", "--cap-add", "--cap-drop"), 1),
}

# The lines of srt's script that wait until its relays listen; they start no program.
WAIT = re.compile(r"^_srt_since=\n.*?^unset _srt_since .*?\n", re.DOTALL | re.MULTILINE)


def split(command: str) -> tuple[str, list[str], list[str]]:
    """Splits a command line of srt into bubblewrap, its options, and the command that runs in it."""
    words = shlex.split(command)
    if words[3:4] == ["srt-args"]:
        # A long list of mounts is in a file, which the fourth word names; "--args 9" refers to it.
        with open(words[4]) as file:
            mounts = file.read().split("\0")[:-1]
        words = words[5:]
        at = words.index("--args")
        words[at : at + 2] = mounts
    end = words.index("--")
    return words[0], words[1:end], words[end + 1 :]


def at_once(words: list[str]) -> list[str]:
    """Returns the command that runs in bubblewrap without srt's wait for its relays: `sandboxed_kernel.py` waits, when it
    has loaded everything. The shell in a shell, which does nothing else, is left out.
    """
    inner = shlex.split(words[2]) if words[1:2] == ["-c"] and len(words) == 3 else []
    if inner[:2] != words[:2] or len(inner) != 3:
        return words
    script, count = WAIT.subn("", inner[2])
    return [*inner[:2], script] if count == 1 else words


def operations(options: Iterable[str]) -> Iterator[list[str]]:
    """Returns the options of bubblewrap, each with its arguments."""
    words = iter(options)
    for option in words:
        yield [option, *(next(words) for _ in range(ARGUMENTS.get(option, 0)))]


def bounded(options: Iterable[str], *, memory: int | None, writable: Iterable[str]) -> list[str]:
    """Returns the options with further isolation: mounts are read-only except `writable`, and tmpfs has a size.

    srt allows every command to write to a folder with a fixed name in /tmp, which another user may have created.
    """
    result = [*ISOLATED]
    for option, *arguments in operations(options):
        if option == "--bind" and not any(is_under(arguments[1], folder) for folder in writable):
            continue
        if option == "--tmpfs":
            result += ["--size", "1048576"]
        result += [option, *arguments]
        if (option, *arguments) == ("--dev", "/dev"):
            # Its files count as memory: code that fills it gets an error before the limit of memory ends the kernel.
            result += [
                *([] if memory is None else ["--size", str(max(memory // 2, 4096))]),
                "--tmpfs",
                "/dev/shm",
                "--remount-ro",
                "/dev",
            ]
    return result


def mount_points(options: Iterable[str]) -> list[tuple[str, bool]]:
    """Returns the mount points that bubblewrap needs, as (path, True for a directory)."""
    return [
        (arguments[1], os.path.isdir(arguments[0]))
        for option, *arguments in operations(options)
        if option == "--ro-bind"
    ]


def is_under(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")
