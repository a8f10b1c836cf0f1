"""Finds all processes that a kernel started, so that none outlives it.

Every process inherits the resource limits of its parent, in any session and environment. The limit of realtime
scheduling is hardly ever used: each kernel gets a unique value of it, too high to have an effect. If the system has no
such limit, or one is set already, processes are found by their environment only. Standard library only.
"""

import os
import resource
import signal
from collections.abc import Iterable, Iterator

from effect_jupyter.system import process_ids

MARK = "EFFECT_JUPYTER_KERNEL"
# Repeated, because a process may start others while it is killed.
MAX_ROUNDS = 100


def limit_of(kernel_id: str) -> int:
    """Returns the limit of a kernel in microseconds: more than 100,000 years."""
    digits = "".join(character for character in kernel_id if character in "0123456789abcdef")
    return (1 << 62) + int(digits[:14] or "0", 16)


def mark(pid: int, kernel_id: str) -> None:
    """Marks a kernel that has just been started, and so all processes that it will start."""
    if hasattr(resource, "prlimit"):
        limit = limit_of(kernel_id)
        try:
            resource.prlimit(pid, resource.RLIMIT_RTTIME, (limit, limit))
        except (OSError, ValueError):
            pass  # it ended, or runs in another kernel, with whose processes it ends


def kill_processes_of(*kernel_ids: str) -> None:
    known: set[int] = set()
    for _ in range(MAX_ROUNDS):
        found = [pid for pid in processes_of(kernel_ids) if pid not in known]
        for pid in found:
            known.add(pid)
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                pass  # it ended, or belongs to another user
        if not found:
            return


def processes_of(kernel_ids: Iterable[str]) -> Iterator[int]:
    variables = {f"{MARK}={kernel_id}".encode() for kernel_id in kernel_ids}
    limits = {str(limit_of(kernel_id)).encode() for kernel_id in kernel_ids}
    for pid in process_ids():
        has_limit = not limits.isdisjoint(read(pid, "limits").split())
        if has_limit or not variables.isdisjoint(read(pid, "environ").split(b"\0")):
            yield pid


def read(pid: int, file: str) -> bytes:
    try:
        with open(f"/proc/{pid}/{file}", "rb") as opened:
            return opened.read()
    except OSError:
        return b""  # it ended, or belongs to another user
