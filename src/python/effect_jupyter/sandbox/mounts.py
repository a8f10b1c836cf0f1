"""Creates mounts before bubblewrap starts, which keeps them with the folder that they are in. For each mount that
bubblewrap creates itself it reads the list of all mounts, which is slow. Standard library only.
"""

import errno
import os
import struct
from collections.abc import Iterator

from effect_jupyter.sandbox.bubblewrap import is_under, operations

# Maximum number of mounts that bubblewrap creates within the time of a start, on a busy machine.
MAX_MOUNTS = 800
PR_SET_DUMPABLE = 4
CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000
MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 0x40000
MOUNT_SETATTR, AT_FDCWD, AT_RECURSIVE, MOUNT_ATTR_RDONLY = 442, -100, 0x8000, 1


def make_ahead(options: list[str], folders: list[str]) -> list[str]:
    """Creates the mounts below folders, and returns the remaining options of bubblewrap.

    Raises RuntimeError if there are too many for bubblewrap and this process cannot create mounts.
    """
    import ctypes

    ours, rest = separate(options, folders)
    libc = ctypes.CDLL(None, use_errno=True)
    if not enter_mount_namespace():
        if len(ours) > MAX_MOUNTS:
            raise RuntimeError(too_many(len(ours)))
        return options

    def check(result: int, path: str) -> None:
        if result != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), path)

    read_only = struct.pack("QQQQ", MOUNT_ATTR_RDONLY, 0, 0, 0)
    check(libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None), "/")
    for option, source, target in ours:
        place = os.fsencode(target)
        check(libc.mount(os.fsencode(source), place, None, MS_BIND | MS_REC, None), target)
        if option == "--ro-bind":
            size = ctypes.c_size_t(len(read_only))
            check(libc.syscall(MOUNT_SETATTR, AT_FDCWD, place, AT_RECURSIVE, read_only, size), target)
    return rest


def too_many(count: int | str) -> str:
    return (
        f"It has {count} files and folders to protect, which takes too long: two for each git directory, and each file "
        'that "denyRead" matches; choose a "workingDir" with fewer, name folders in it in "allowWrite", or set "allowGit"'
    )


def separate(options: list[str], folders: list[str]) -> tuple[list[list[str]], list[str]]:
    """Returns the mounts below folders that can be created first, and the other options."""
    ours: list[list[str]] = []
    rest: list[str] = []
    covers: set[str] = set()
    open_folders: set[str] = set()
    for option, *arguments in operations(options):
        is_bind = option in ("--bind", "--ro-bind")
        target = arguments[-1] if arguments else ""
        is_same = is_bind and arguments[0] == target
        around = [folder for folder in folders if target != folder and is_under(target, folder)]
        # A mount in a folder that another mount hides must be created after that one.
        if is_bind and around and covers.isdisjoint(with_ancestors(target)):
            if not open_folders.isdisjoint(around):
                ours.append([option, *arguments])
                continue
            # The mount of the folder hides this one, which still prevents renaming.
            if is_same:
                ours.append(["--bind", *arguments])
                continue
        rest += [option, *arguments]
        if is_same and target in folders:
            open_folders.add(target)
        elif option in ("--tmpfs", "--dev", "--proc", "--dev-bind") or (is_bind and not is_same):
            covers.add(target)
    return ours, rest


def with_ancestors(path: str) -> Iterator[str]:
    while path != "/":
        yield path
        path = os.path.dirname(path)


def enter_mount_namespace() -> bool:
    """Enters a mount namespace without further rights to files. Returns False if the system does not allow it."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall(MOUNT_SETATTR, -1, b"", 0, None, ctypes.c_size_t(0))
    if ctypes.get_errno() == errno.ENOSYS:
        return False
    uid, gid = os.getuid(), os.getgid()
    if libc.unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0:
        return False
    # Without this, a process that has changed its user may not write its files in /proc; bubblewrap does the same.
    libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)
    for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)
    return True
