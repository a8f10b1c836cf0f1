"""Creates and removes empty files and folders without following links. Standard library only, and little of it: the
launcher of each kernel loads this.
"""

import os
import stat

OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def make(path, is_directory):
    """Creates a placeholder unless the path exists, without following links in the path."""

    def create(name, folder):
        if is_directory:
            os.mkdir(name, 0o755, dir_fd=folder)
        else:
            os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o444, dir_fd=folder))

    in_folder(path, create)


def remove(path):
    """Removes an empty file or folder, without following links in the path."""

    def delete(name, folder):
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode):
            os.rmdir(name, dir_fd=folder)  # only if it is empty
        elif stat.S_ISREG(status.st_mode) and status.st_size == 0:
            os.unlink(name, dir_fd=folder)

    in_folder(path, delete)


def in_folder(path, action):
    """Calls `action` with a name and an open folder; errors are ignored."""
    *steps, name = filter(None, path.split("/"))
    try:
        folder = os.open("/", OPEN_DIRECTORY)
        try:
            for step in steps:
                inner = os.open(step, OPEN_DIRECTORY, dir_fd=folder)
                os.close(folder)
                folder = inner
            action(name, folder)
        finally:
            os.close(folder)
    except (OSError, ValueError):
        pass
