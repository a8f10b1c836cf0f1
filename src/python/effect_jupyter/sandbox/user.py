"""Changes to an unprivileged user, with access to the files that sandboxed kernels need. Standard library only.

As a program: user.py IDENTITY COMMAND ..., where IDENTITY is a JSON object {"uid", "gid", "paths"}, becomes
COMMAND as that user.
"""

import os
import stat
import sys

CLONE_NEWNS = 0x00020000
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 0x40000


def drop_privileges(user, paths):
    """Changes to the user permanently. Each of `paths` is accessible after that.

    Interpreters and packages of root are often in a home that other users may not enter. In a mount namespace of this
    process such a home is replaced by an empty folder with only these paths in it.
    """
    if sys.platform.startswith("linux"):
        expose_paths(user, paths)
    uid, gid = user["uid"], user["gid"]
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    # The largest id means "unchanged" to the system.
    if os.getresuid() != (uid,) * 3 or os.getresgid() != (gid,) * 3 or os.getgroups():
        raise PermissionError(f"The process did not become the user {uid}")


def expose_paths(user, paths):
    hidden = {}
    for path in outermost(set(paths)):
        # A user who can write a folder of the path could redirect it.
        if os.path.realpath(path) != path:
            raise PermissionError(f"{path} was moved or replaced")
        closed = closed_ancestor(user, path)
        if closed is not None:
            hidden.setdefault(closed, []).append(path)
    if not hidden:
        return
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    check(libc, libc.unshare(CLONE_NEWNS), "unshare")
    check(libc, libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None), "/")
    for closed, contents in hidden.items():
        descriptors = [open_place(path) for path in contents]
        check(libc, libc.mount(b"tmpfs", closed.encode(), b"tmpfs", 0, b"mode=755,size=1m"), closed)
        for path, descriptor in zip(contents, descriptors):
            make_place(path, descriptor)
            source = f"/proc/self/fd/{descriptor}".encode()
            check(libc, libc.mount(source, path.encode(), None, MS_BIND | MS_REC, None), path)
            os.close(descriptor)


def open_place(path):
    """Opens a path, and checks that it was not redirected since it was resolved."""
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    if os.readlink(f"/proc/self/fd/{descriptor}") != path:
        raise PermissionError(f"{path} was moved or replaced")
    return descriptor


def outermost(paths):
    """Returns the paths that are in no other one."""
    return [path for path in sorted(paths) if not any(path.startswith(f"{other}/") for other in paths)]


def closed_ancestor(user, path):
    """Returns the topmost folder of a path that the user may not enter."""
    folder = ""
    for name in path.split("/")[1:-1]:
        folder = f"{folder}/{name}"
        if not may_enter(user, os.stat(folder)):
            return folder
    return None


def may_enter(user, status):
    if status.st_uid == user["uid"]:
        return bool(status.st_mode & stat.S_IXUSR)
    if status.st_gid == user["gid"]:
        return bool(status.st_mode & stat.S_IXGRP)
    return bool(status.st_mode & stat.S_IXOTH)


def make_place(path, descriptor):
    """Creates a mount point of the same kind."""
    os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
    if stat.S_ISDIR(os.fstat(descriptor).st_mode):
        os.mkdir(path, 0o755)
    else:
        os.close(os.open(path, os.O_CREAT | os.O_CLOEXEC, 0o644))


def check(libc, result, path):
    if result != 0:
        import ctypes

        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), path)


if __name__ == "__main__":
    import json

    identity, *command = sys.argv[1:]
    identity = json.loads(identity)
    drop_privileges(identity, identity["paths"])
    os.execvp(command[0], command)
