"""The empty files and folders in a workspace that are mount points of bubblewrap. They exist while any gateway of this
user has a kernel there, because a mount disappears with its mount point. Standard library only.

For each folder a file in `registry`, a directory that no kernel sees, lists the placeholders below it. A gateway with
a kernel there holds a shared lock of that file; one that gets an exclusive lock is the last, and removes the
placeholders.
"""

import fcntl
import json
import os
import re
import stat
import threading

from effect_jupyter.sandbox.mount_points import remove

PREFIX = "placeholders-"


class Placeholders:
    def __init__(self, registry):
        self._registry = registry
        self._held = {}
        self._lock = threading.Lock()

    def hold(self, folders):
        """Prevents other processes from removing placeholders below the folders."""
        with self._lock:
            for folder in folders:
                file, count = self._held.get(folder) or (self._share(folder), 0)
                self._held[folder] = file, count + 1

    def note(self, folders, paths):
        """Records paths before they are created. Returns those that are below the folders."""
        made = []
        with self._lock:
            for path in paths:
                folder = next((folder for folder in folders if path.startswith(f"{folder.rstrip('/')}/")), None)
                if folder is not None:
                    os.write(self._held[folder][0], f"{json.dumps(path)}\n".encode())
                    made.append(path)
        return made

    def release(self, folders):
        with self._lock:
            for folder in folders:
                file, count = self._held.pop(folder)
                if count > 1:
                    self._held[folder] = file, count - 1
                else:
                    remove_if_last(file, self._path(folder))

    def _path(self, folder):
        import hashlib  # imported here: the supervisor needs only the rest of this module

        return os.path.join(self._registry, PREFIX + hashlib.sha256(folder.encode()).hexdigest()[:32])

    def _share(self, folder):
        path = self._path(folder)
        while True:
            file = os.open(path, os.O_CREAT | os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            # Exclusive locks are held for a short time only.
            fcntl.flock(file, fcntl.LOCK_SH)
            if is_at(file, path):
                return file
            os.close(file)


def is_at(file, path):
    try:
        return os.path.samestat(os.fstat(file), os.stat(path))
    except FileNotFoundError:
        return False


def remove_all(registry):
    """Removes placeholders that no process uses any more."""
    try:
        paths = [os.path.join(registry, name) for name in os.listdir(registry) if name.startswith(PREFIX)]
    except OSError:
        return  # it is gone
    for path in paths:
        try:
            file = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            continue  # it is gone
        remove_if_last(file, path)


def remove_if_last(file, path):
    """Closes the file, and removes the placeholders that it lists unless other processes hold it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if is_at(file, path):
            os.lseek(file, 0, os.SEEK_SET)
            with os.fdopen(os.dup(file), encoding="utf-8") as lines:
                paths = {json.loads(line) for line in lines}
            # The deepest first.
            for placeholder in sorted(paths, reverse=True):
                remove(placeholder)
            os.unlink(path)
    except (OSError, ValueError):
        pass  # others hold it
    finally:
        os.close(file)


def registries(folder):
    """Returns the directories that gateways of this user share."""
    try:
        names = [name for name in os.listdir(folder) if re.fullmatch(r"effect-jupyter-[0-9a-f]{12}", name)]
    except OSError:
        return []
    return [path for path in (os.path.join(folder, name) for name in names) if is_own(path)]


def is_own(path):
    """Tells whether it is a folder of this user: another user may have created it, or a link."""
    try:
        status = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid()
