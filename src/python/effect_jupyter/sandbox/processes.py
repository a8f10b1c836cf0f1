"""Watches the processes of a sandboxed kernel from outside: limits of all together, as the system limits each only,
and the one to interrupt. Standard library only.
"""

import contextlib
import ctypes
import os
import signal

from effect_jupyter.system import process_ids, stat_fields

TICKS = os.sysconf("SC_CLK_TCK")
# Consecutive checks with the maximum number of processes after which a kernel counts as forking without an end.
MAX_FULL_CHECKS = 8


# The memory of a process: its private pages, in memory or swap, and its page tables. Shared pages are in files.
PRIVATE = (b"RssAnon:", b"VmSwap:", b"VmPTE:", b"HugetlbPages:")


def read(pid):
    """(parent, (bytes of memory, of which shared), threads, seconds of CPU time with dead children's, depth of
    namespaces)."""
    try:
        fields = stat_fields(pid)
        memory, shared, depth = 0, 0, 1
        with open(f"/proc/{pid}/status", "rb") as file:
            for line in file:
                if line.startswith(PRIVATE):
                    memory += int(line.split()[1]) * 1024
                elif line.startswith(b"RssShmem:"):
                    shared = int(line.split()[1]) * 1024
                elif line.startswith(b"NSpid:"):
                    depth = len(line.split()) - 1
        return int(fields[1]), (memory, shared), int(fields[17]), sum(map(int, fields[11:15])) / TICKS, depth
    except (OSError, IndexError, ValueError):
        return None  # it ended


def snapshot():
    """Returns all processes by parent, as (pid, memory, threads, seconds, depth)."""
    children = {}
    for pid in process_ids():
        found = read(pid)
        if found is not None:
            children.setdefault(found[0], []).append((pid, *found[1:]))
    return children


class Leader:
    """The process of a kernel as seen from outside of its sandbox, and its process group."""

    def __init__(self, pid):
        self.pid = pid
        self._birth = birth(pid)

    def interrupt(self):
        """Sends the interrupt signal before the request returns; a message to the kernel would be handled later."""
        # The number may have been reused.
        if self._birth is not None and birth(self.pid) == self._birth:
            interrupt(self.pid)


def interrupt(leader):
    """Sends the interrupt signal to the processes of a process group.

    If the leader is stopped, its main thread gets it: otherwise the system would choose any thread that code has
    started, and what the main thread waits for would go on.
    """
    libc = ctypes.CDLL(None)
    if not (is_stopped(leader) and hasattr(libc, "tgkill")):
        return os.killpg(leader, signal.SIGINT)
    for pid in process_ids():
        with contextlib.suppress(OSError, IndexError):  # it ended
            if int(stat_fields(pid)[2]) != leader:
                continue
            if pid == leader:
                libc.tgkill(pid, pid, signal.SIGINT)
            else:
                os.kill(pid, signal.SIGINT)


def birth(pid):
    try:
        return stat_fields(pid)[19]
    except OSError:
        return None


def is_stopped(pid):
    """Tells whether a signal or a debugger has stopped the process."""
    try:
        return stat_fields(pid)[0] in (b"T", b"t")
    except (OSError, IndexError):
        return False  # it ended, or cannot be read


def children(pid):
    """Returns the child processes of a process."""
    if not os.path.exists("/proc/thread-self/children"):
        return [child for child, *_ in snapshot().get(pid, ())]
    found = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children") as file:
                found += map(int, file.read().split())
    except OSError:
        pass  # it ended
    return found


def find_leader(sandbox, inner_pid):
    """Returns the process below `sandbox` with this pid in the innermost namespace; None if there is none."""
    todo, found = [sandbox], {}
    while todo:
        for child in children(todo.pop()):
            todo.append(child)
            try:
                with open(f"/proc/{child}/status", "rb") as file:
                    numbers = next(line.split()[1:] for line in file if line.startswith(b"NSpid:"))
            except (OSError, StopIteration):
                continue
            if int(numbers[-1]) == inner_pid:
                found[len(numbers)] = child
    # The outer namespace of the sandbox may have the same pid.
    return Leader(found[max(found)]) if found else None


def in_shared_files(pid):
    """Returns the bytes of the files in the /dev/shm of a process, mapped or not."""
    try:
        status = os.statvfs(f"/proc/{pid}/root/dev/shm")
    except OSError:
        return 0  # it ended
    return (status.f_blocks - status.f_bfree) * status.f_frsize


class Watch:
    """Checks the limits of one kernel repeatedly."""

    def __init__(self, limits):
        self._limits = limits
        self._full = 0

    def exceeded(self, children, pid):
        """Describes the limit that the kernel in the sandbox `pid` exceeds; returns None if it exceeds none."""
        limits = self._limits
        memory, shared, seconds = 0, 0, 0.0
        # Processes in outer namespaces are those of the sandbox itself.
        threads, inside = {}, {}
        todo = [pid]
        while todo:
            for child, (its_own, its_shared), its_threads, its_seconds, depth in children.get(todo.pop(), ()):
                memory, shared, seconds = memory + its_own, shared + its_shared, seconds + its_seconds
                threads[depth] = threads.get(depth, 0) + its_threads
                inside[depth] = child
                todo.append(child)
        if "memory" in limits and inside:
            memory += max(shared, in_shared_files(inside[max(inside)]))
        if memory > limits.get("memory", float("inf")):
            return f"memory of {memory} bytes, more than {limits['memory']}"
        if seconds > limits.get("cpuTime", float("inf")):
            return f"CPU time of {seconds:.1f} s, more than {limits['cpuTime']}"
        count = threads[max(threads)] if threads else 0
        # The system also counts the first process of the sandbox.
        self._full = self._full + 1 if count + 1 >= limits.get("processes", float("inf")) else 0
        if self._full >= MAX_FULL_CHECKS:
            return f"processes without end, more than {limits['processes']}"
        return None
