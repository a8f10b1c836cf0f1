"""Folders of this user alone, which several gateways use. Standard library only."""

import fcntl
import os

OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


def make_private(folder: str) -> None:
    """Makes a folder and its parent, each for this user only, unless they exist."""
    for each in (os.path.dirname(folder), folder):
        try:
            os.mkdir(each, 0o700)
        except FileExistsError:
            pass


def hold(folder: str) -> int:
    """Makes a folder that `remove_unless_held` keeps until the returned descriptor is closed."""
    while True:
        make_private(folder)
        descriptor = os.open(folder, OPEN_FOLDER)
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        if os.path.exists(folder) and os.path.samestat(os.stat(folder), os.fstat(descriptor)):
            return descriptor
        os.close(descriptor)


def remove_unless_held(folder: str) -> None:
    """Removes a folder if it is empty."""
    try:
        descriptor = os.open(folder, OPEN_FOLDER)
    except OSError:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.rmdir(folder)
    except OSError:
        pass  # it is held, or not empty
    finally:
        os.close(descriptor)
