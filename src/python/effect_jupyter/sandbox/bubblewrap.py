"""The command of bubblewrap that srt makes, changed into ours. Standard library only."""

import os
import shlex

# Shares even less than srt asks for: no shared memory, no semaphores, no name of the host.
ISOLATED = ["--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"]

# How many arguments those options of bubblewrap take that srt uses.
ARGUMENTS = {
    **dict.fromkeys(("--bind", "--ro-bind", "--dev-bind", "--setenv"), 2),
    **dict.fromkeys(("--tmpfs", "--dev", "--proc", "--unsetenv", "--cap-add", "--cap-drop"), 1),
}


def split(command):
    """(bubblewrap, its options, what runs in it) of a command line of srt."""
    words = shlex.split(command)
    if words[3:4] == ["srt-args"]:
        # A long list of mounts is in a file, which the fourth word names and "--args 9" stands for.
        with open(words[4]) as file:
            mounts = file.read().split("\0")[:-1]
        words = words[5:]
        at = words.index("--args")
        words[at : at + 2] = mounts
    end = words.index("--")
    return words[0], words[1:end], words[end + 1 :]


def operations(options):
    """The options of bubblewrap, each with its arguments."""
    words = iter(options)
    for option in words:
        yield [option, *(next(words) for _ in range(ARGUMENTS.get(option, 0)))]


def bounded(options, *, memory, writable):
    """The options, isolated; what is not among `writable` is mounted to be read, and what is memory has a size.

    srt lets every command write to a folder of a fixed name in /tmp, which another user may have made first.
    """
    result = [*ISOLATED]
    for option, *arguments in operations(options):
        if option == "--bind" and not any(is_under(arguments[1], folder) for folder in writable):
            continue
        if option == "--tmpfs":
            result += ["--size", "1048576"]
        result += [option, *arguments]
        if (option, *arguments) == ("--dev", "/dev"):
            # What is in there counts too: whoever fills it is told so before the limit of memory ends the kernel.
            result += [
                *([] if memory is None else ["--size", str(max(memory // 2, 4096))]),
                "--tmpfs",
                "/dev/shm",
                "--remount-ro",
                "/dev",
            ]
    return result


def mount_points(options):
    """(path, whether it is a directory) of what bubblewrap has to find, or make, to mount something on."""
    return [
        (arguments[1], os.path.isdir(arguments[0]))
        for option, *arguments in operations(options)
        if option == "--ro-bind"
    ]


def is_under(path, folder):
    return path == folder or path.startswith(folder.rstrip("/") + "/")
