"""The processes that a kernel started, wherever they went: none outlives it.

A resource limit is handed down to whatever a process starts, in whatever way, with whatever environment and in whatever
session. That of realtime scheduling is one that nobody has or needs: each kernel gets one too high to matter, which is
its own. Where the system has no such limits, or one is set already, the environment alone tells. Standard library only.
"""

import os
import resource
import signal

from effect_jupyter.system import process_ids

MARK = "EFFECT_JUPYTER_KERNEL"
# A process that starts others without end ends them as often; who was told to end starts none.
MOST_ROUNDS = 100


def limit_of(kernel_id):
    """A number of microseconds, more than 100,000 years."""
    digits = "".join(character for character in kernel_id if character in "0123456789abcdef")
    return (1 << 62) + int(digits[:14] or "0", 16)


def mark(pid, kernel_id):
    """Marks a kernel that has just been started, and so all that it will start."""
    if hasattr(resource, "prlimit"):
        limit = limit_of(kernel_id)
        try:
            resource.prlimit(pid, resource.RLIMIT_RTTIME, (limit, limit))
        except (OSError, ValueError):
            pass  # it ended, or is itself within a kernel, with whose processes it ends


def kill_processes_of(*kernel_ids):
    known = set()
    for _ in range(MOST_ROUNDS):
        found = [pid for pid in processes_of(kernel_ids) if pid not in known]
        for pid in found:
            known.add(pid)
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                pass  # it ended, or belongs to somebody else
        if not found:
            return


def processes_of(kernel_ids):
    variables = {f"{MARK}={kernel_id}".encode() for kernel_id in kernel_ids}
    limits = {str(limit_of(kernel_id)).encode() for kernel_id in kernel_ids}
    for pid in process_ids():
        has_limit = not limits.isdisjoint(read(pid, "limits").split())
        if has_limit or not variables.isdisjoint(read(pid, "environ").split(b"\0")):
            yield pid


def read(pid, file):
    try:
        with open(f"/proc/{pid}/{file}", "rb") as opened:
            return opened.read()
    except OSError:
        return b""  # it ended, or belongs to somebody else
