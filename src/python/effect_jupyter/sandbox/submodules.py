"""Reads the submodules of a repository from its index: git enters each of them when it looks for changes. Standard
library only.
"""

import glob
import os
import stat
import struct

MAX_NAME_LENGTH = 4096
KIND, SUBMODULE = 0o170000, 0o160000


def submodules(worktree: str, directory: str, limit: int) -> tuple[list[str], int]:
    """Returns the folders of a working tree that are submodules, even if they have no repository; and the number of
    bytes that were read, at most `limit`.
    """
    # The second are shared indices, which an index may refer to.
    files = [os.path.join(directory, "index"), *glob.glob(os.path.join(glob.escape(directory), "sharedindex.*"))]
    names: set[bytes] = set()
    done = 0
    for file in files:
        data = read(file, limit - done)
        names.update(names_in(data))
        done += len(data)
    return [os.path.join(worktree, os.fsdecode(name)) for name in sorted(names) if is_below(name)], done


def is_below(name: bytes) -> bool:
    return not {b"", b".", b".."}.intersection(name.split(b"/"))


def read(file: str, limit: int) -> bytes:
    """Returns the bytes of an index; none if it is longer. The file may be a pipe, a link, or without an end."""
    try:
        with open(os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as opened:
            status = os.fstat(opened.fileno())
            if not stat.S_ISREG(status.st_mode) or status.st_size > limit or opened.read(4) != b"DIRC":
                return b""
            return b"DIRC" + opened.read(status.st_size)
    except OSError:
        return b""  # it does not exist, or is not readable


def names_in(data: bytes) -> list[bytes]:
    """Returns the names of submodules in an index, trying both lengths of hashes, which the index does not state."""
    # The usual case: the mode of submodules does not occur.
    if struct.pack(">I", SUBMODULE) not in data:
        return []
    for length in (20, 32):
        try:
            return parse(data, length)
        except (struct.error, ValueError):
            pass  # it has the other length, or is not an index
    return []


def parse(data: bytes, hash_length: int) -> list[bytes]:
    """Parses an index by git's `gitformat-index`, versions 2 to 4. Raises ValueError or struct.error."""
    version, count = struct.unpack_from(">II", data, 4)
    at, name = 12, b""
    found: list[bytes] = []
    for _ in range(count):
        (mode,) = struct.unpack_from(">I", data, at + 24)
        (flags,) = struct.unpack_from(">H", data, at + 40 + hash_length)
        start = at + 42 + hash_length + (2 if flags & 0x4000 else 0)
        kept = 0
        if version == 4:
            # The name shares a prefix with the previous one: all but this number of bytes.
            removed, start = number(data, start)
            kept = len(name) - removed
        end = data.index(b"\0", start)
        if kept < 0 or kept + end - start > MAX_NAME_LENGTH or flags & 0xFFF != min(kept + end - start, 0xFFF):
            raise ValueError("It is not an index, or its hashes have another length")
        name = name[:kept] + data[start:end]
        at = end + 1 if version == 4 else at + (end - at + 8) // 8 * 8
        if mode & KIND == SUBMODULE:
            found.append(name)
    return found


def number(data: bytes, at: int) -> tuple[int, int]:
    """Returns a number of variable length, and the index of its end."""
    value = data[at : at + 1]
    if not value:
        raise ValueError("It ends too early")
    result, at = value[0] & 0x7F, at + 1
    while data[at - 1] & 0x80:
        if at >= len(data) or result > MAX_NAME_LENGTH:
            raise ValueError("It is not an index")
        result, at = (result + 1) << 7 | data[at] & 0x7F, at + 1
    return result, at
