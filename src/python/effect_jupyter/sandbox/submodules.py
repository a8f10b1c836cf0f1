"""Where a repository has submodules, as its index says: git enters each of them whenever it looks at what has changed.
Standard library only.
"""

import glob
import os
import stat
import struct

LONGEST_NAME = 4096
KIND, SUBMODULE = 0o170000, 0o160000


def submodules(worktree, directory, most):
    """The folders of a working tree that belong to other repositories, whether these are there or not; and how many of
    at most so many bytes were looked at.
    """
    # The second are those that an index shares with others.
    files = [os.path.join(directory, "index"), *glob.glob(os.path.join(glob.escape(directory), "sharedindex.*"))]
    names, done = set(), 0
    for file in files:
        data = read(file, most - done)
        names.update(names_in(data))
        done += len(data)
    return [os.path.join(worktree, os.fsdecode(name)) for name in sorted(names) if is_below(name)], done


def is_below(name):
    return not {b"", b".", b".."}.intersection(name.split(b"/"))


def read(file, most):
    """The bytes of an index, none if it has more; the file may be a pipe, a link, or without end."""
    try:
        with open(os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as opened:
            status = os.fstat(opened.fileno())
            if not stat.S_ISREG(status.st_mode) or status.st_size > most or opened.read(4) != b"DIRC":
                return b""
            return b"DIRC" + opened.read(status.st_size)
    except OSError:
        return b""  # there is none, or it is not readable


def names_in(data):
    """The names of submodules in an index, which does not say how long its hashes are."""
    # As almost always: the mode of one is nowhere.
    if struct.pack(">I", SUBMODULE) not in data:
        return []
    for length in (20, 32):
        try:
            return parse(data, length)
        except (struct.error, ValueError):
            pass  # it is the other, or none
    return []


def parse(data, hash_length):
    """Follows git's `gitformat-index`, versions 2 to 4; ValueError or struct.error if it is none."""
    version, count = struct.unpack_from(">II", data, 4)
    at, name, found = 12, b"", []
    for _ in range(count):
        (mode,) = struct.unpack_from(">I", data, at + 24)
        (flags,) = struct.unpack_from(">H", data, at + 40 + hash_length)
        start = at + 42 + hash_length + (2 if flags & 0x4000 else 0)
        kept = 0
        if version == 4:
            # Begins like the one before, but for so many bytes.
            removed, start = number(data, start)
            kept = len(name) - removed
        end = data.index(b"\0", start)
        if kept < 0 or kept + end - start > LONGEST_NAME or flags & 0xFFF != min(kept + end - start, 0xFFF):
            raise ValueError("It is no index, or its hashes have another length")
        name = name[:kept] + data[start:end]
        at = end + 1 if version == 4 else at + (end - at + 8) // 8 * 8
        if mode & KIND == SUBMODULE:
            found.append(name)
    return found


def number(data, at):
    """A number of git's variable length, and where it ends."""
    value = data[at : at + 1]
    if not value:
        raise ValueError("It ends too early")
    result, at = value[0] & 0x7F, at + 1
    while data[at - 1] & 0x80:
        if at >= len(data) or result > LONGEST_NAME:
            raise ValueError("It is no index")
        result, at = (result + 1) << 7 | data[at] & 0x7F, at + 1
    return result, at
