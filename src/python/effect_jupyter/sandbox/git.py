"""Finds the files of git in writable folders: git commands of the user run programs that these files name. Standard
library only.
"""

import os
import re
import stat
from collections.abc import Collection

from effect_jupyter.sandbox.names import utf8
from effect_jupyter.sandbox.submodules import submodules

# Maximum number of directories to search before a kernel starts, which takes about a second.
MAX_DIRECTORIES = 100_000
# Maximum number of submodules: a kernel can write a repository that declares any number.
MAX_SUBMODULES = 1000
# Maximum bytes of indices to read; a longer one has millions of files.
MAX_BYTES = 256 * 1024 * 1024
# The entries by which git recognizes a git directory.
PARTS = frozenset(("HEAD", "objects", "refs"))


class Repositories:
    """The git directories of a workspace. They are remembered, as a kernel could hide one among many directories."""

    def __init__(self):
        self._known: set[str] = set()

    def protected(self, folders: list[str]) -> list[str]:
        """Returns paths below `folders` that must not be writable, including some that do not exist."""
        folders = [folder for folder in folders if os.path.isdir(folder)]
        found = {path for folder in folders for path in find(folder, folders)}
        self._known.update(found)
        known = sorted(filter(os.path.lexists, self._known), key=lambda path: (path.count("/"), path))
        above = [place for folder in folders if (place := repository_above(folder)) is not None]
        places = [*above, *(path for path in known if os.path.basename(path) == ".git")]
        top = [path for folder in folders for path in at_top(folder)]
        missing = [path for place in sorted(found.difference(known)) for path in in_place_of(place, set(known))]
        paths = [*known, *top, *missing, *without_repository(places, folders)]
        return [utf8(path, "git directory") for path in paths]


def is_in(path: str, places: Collection[str]) -> bool:
    """Tells whether a path is one of the places, or below one."""
    while path not in places and path != "/":
        path = os.path.dirname(path)
    return path in places


def in_place_of(place: str, known: Collection[str]) -> list[str]:
    """Returns the paths that prevent that a git directory, to which a link or a file refers, is created."""
    parent = os.path.dirname(place)
    while not os.path.lexists(parent):
        parent = os.path.dirname(parent)
    # srt reads a name with wildcards as a pattern if it does not exist.
    if is_in(parent, known) or re.search(r"[*?[\]]", place):
        return []
    # With the second path the first is an empty directory, so that git finds the repository above.
    return [place, os.path.join(place, "hooks")] if os.path.isdir(parent) else [parent]


def at_top(folder: str) -> list[str]:
    """Returns the paths that prevent a folder from becoming a repository, with `.git` or without."""
    place = os.path.join(folder, ".git")
    if os.path.isfile(place) and os.path.getsize(place) > 0 or is_git(place):
        return [place]
    head = os.path.join(folder, "HEAD")
    # An empty file would be an error for git. With the third path the first is an empty directory, so that git finds
    # the repository above.
    return [place, head, os.path.join(place, "hooks")] if is_in_repository(folder) else [place, head]


def is_in_repository(folder: str) -> bool:
    return repository_above(folder) is not None


def repository_above(folder: str) -> str | None:
    """Returns the nearest `.git` above a folder; None if there is none."""
    while folder != "/":
        folder = os.path.dirname(folder)
        place = os.path.join(folder, ".git")
        if os.path.lexists(place):
            return place
    return None


def without_repository(places: list[str], folders: list[str]) -> list[str]:
    """Returns the folders of submodules without a repository: git would use a repository that is created there, and run
    the programs of its settings.
    """
    seen: set[str] = set()
    left = MAX_BYTES
    for place in places:
        worktree = os.path.dirname(place)
        directory = place if os.path.isdir(place) else read_path(place, "gitdir:")
        if directory is None:
            continue
        paths, done = submodules(worktree, directory, left)
        left -= done
        inside = [path for path in paths if any(path.startswith(f"{folder.rstrip('/')}/") for folder in folders)]
        seen.update(inside[: MAX_SUBMODULES - len(seen)])
    # git does not follow links in the path either.
    return sorted(
        path for path in seen if not os.path.lexists(os.path.join(path, ".git")) and os.path.realpath(path) == path
    )


def find(top: str, folders: list[str]) -> list[str]:
    """Returns the git directories below a folder, the files named `.git` that refer to others, these others if they are
    below one of `folders`, even if they are missing, and the folders that may contain some: those that cannot be
    searched, which a kernel could make readable again, and those in which `.git` is a link, which a kernel could replace.

    Raises RuntimeError if there are too many folders: a kernel could hide a repository behind others.
    """
    found: list[str] = []
    todo = [top]
    for folder in todo:
        try:
            with os.scandir(folder) as entries:
                kinds = {entry.name: entry.is_dir(follow_symlinks=False) for entry in entries}
            if not os.access(folder, os.X_OK):
                raise PermissionError
        except PermissionError:
            found.append(folder)
            continue
        except OSError:
            continue  # it is gone
        if ".git" in kinds:
            place = os.path.join(folder, ".git")
            found += [folder if os.path.islink(place) else place, *named_by(place, folders)]
        if folder != top and kinds.keys() >= PARTS:
            found.append(folder)
            continue
        todo += [
            os.path.join(folder, name)
            for name, is_directory in sorted(kinds.items())
            if is_directory and name not in (".git", "node_modules")
        ]
        if len(todo) > MAX_DIRECTORIES:
            raise RuntimeError(
                f'The folder "{top}" has more than {MAX_DIRECTORIES} folders, too many to search for git directories; '
                'choose a "workingDir" with fewer, name folders in it in "allowWrite", or set "allowGit"'
            )
    return found


def is_git(folder: str) -> bool:
    return all(os.path.lexists(os.path.join(folder, part)) for part in PARTS)


def named_by(place: str, folders: list[str]) -> list[str]:
    """Returns the git directory that a file or a link refers to, and the one that it shares, if below one of `folders`."""
    directory = os.path.realpath(place) if os.path.islink(place) else read_path(place, "gitdir:")
    if directory is None:
        return []
    common = read_path(os.path.join(directory, "commondir"), "")
    places = [directory] if common is None else [directory, common]
    # Still a link: it refers to itself.
    return [place for place in places if is_in(os.path.dirname(place), folders) and not os.path.islink(place)]


def read_path(file: str, prefix: str) -> str | None:
    """Returns the path in a file of git, relative to its folder. The file may be a pipe, a link, or without an end."""
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            text = os.read(descriptor, 4096).decode() if stat.S_ISREG(os.fstat(descriptor).st_mode) else ""
        finally:
            os.close(descriptor)
        if not text.startswith(prefix) or not text[len(prefix) :].strip():
            return None
        return os.path.realpath(os.path.join(os.path.dirname(file), text[len(prefix) :].strip()))
    except (OSError, ValueError):
        return None
