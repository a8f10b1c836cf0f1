"""System calls for processes and folders. Standard library only."""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
PR_SET_SECCOMP = 22
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38


def prctl(option: int, *values: "int | bytes") -> int:
    """Sets an option of this process; negative if Linux refuses, zero on other systems, which have no such options."""
    if not sys.platform.startswith("linux"):
        return 0
    return ctypes.CDLL(None, use_errno=True).prctl(option, *values, *[0] * (4 - len(values)))


def die_with(parent: int) -> None:
    """Makes this process end when `parent`, which started it, ends."""
    if sys.platform.startswith("linux"):
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before the line above
            os._exit(1)


def process_ids() -> list[int]:
    """Returns the numbers of all processes that can be seen in /proc."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit()] if os.path.isdir("/proc/self") else []


def stat_fields(pid: int) -> list[bytes]:
    """Returns the fields of /proc/PID/stat from the state on: the first is the third in the manual."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        # The name of a command may hold blanks and parentheses.
        return file.read().rpartition(b")")[2].split()


def remove_tree(folder: str) -> None:
    """Removes a folder with all that it contains, of any depth and permissions. Errors are ignored."""
    import subprocess  # imported here: kernels need only the rest of this module

    # Not by Python's own functions, which are recursive: deep folders exceed the stack.
    for command in (["/bin/rm", "-rf"], ["/bin/chmod", "-R", "u+rwX"], ["/bin/rm", "-rf"]):
        if os.path.lexists(folder):
            subprocess.run([*command, "--", folder], stderr=subprocess.DEVNULL)
