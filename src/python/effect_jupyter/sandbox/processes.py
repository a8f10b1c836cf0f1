"""The processes of a sandboxed kernel from outside: bounds of all together, as the system bounds each alone, and the
one to interrupt. Standard library only.
"""

import os
import signal

from effect_jupyter.system import process_ids, stat_fields

TICKS = os.sysconf("SC_CLK_TCK")
# How many looks in a row a kernel may have all the processes that it may have: what forks without end does.
PATIENCE = 8


# What a process holds: its own pages, where they are, and the tables of all its pages. Shared ones are in files.
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
    """All processes by parent, as (pid, memory, threads, seconds, depth)."""
    children = {}
    for pid in process_ids():
        found = read(pid)
        if found is not None:
            children.setdefault(found[0], []).append((pid, *found[1:]))
    return children


class Leader:
    """The process of a kernel, seen from outside of its sandbox, and the group of those that it started."""

    def __init__(self, pid):
        self.pid = pid
        self._birth = birth(pid)

    def interrupt(self):
        """Sends the signal that a message inside would only ask for: before whoever asks goes on."""
        # Another process may have the number by now.
        if self._birth is not None and birth(self.pid) == self._birth:
            os.killpg(self.pid, signal.SIGINT)


def birth(pid):
    try:
        return stat_fields(pid)[19]
    except OSError:
        return None


def is_stopped(pid):
    """Whether a signal or a debugger has stopped the process."""
    try:
        return stat_fields(pid)[0] in (b"T", b"t")
    except (OSError, IndexError):
        return False  # it ended, or the system does not tell


def children(pid):
    """The processes whose parent this one is."""
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
    """The process below `sandbox` that has this number in the innermost namespace; None if there is none."""
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
    # The outer namespace of the sandbox has the same numbers.
    return Leader(found[max(found)]) if found else None


def in_shared_files(pid):
    """Bytes of the files in /dev/shm as a process sees it, mapped by any process or not."""
    try:
        status = os.statvfs(f"/proc/{pid}/root/dev/shm")
    except OSError:
        return 0  # it ended
    return (status.f_blocks - status.f_bfree) * status.f_frsize


class Watch:
    """Looks at one kernel again and again."""

    def __init__(self, limits):
        self._limits = limits
        self._full = 0

    def exceeded(self, children, pid):
        """What the kernel whose sandbox is `pid` has too much of, in words; None if nothing."""
        limits = self._limits
        memory, shared, seconds = 0, 0, 0.0
        # The sandbox's own processes are less deep, and are not the kernel's.
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
        # The system counts one more: the first process of the sandbox.
        self._full = self._full + 1 if count + 1 >= limits.get("processes", float("inf")) else 0
        if self._full >= PATIENCE:
            return f"processes without end, more than {limits['processes']}"
        return None
