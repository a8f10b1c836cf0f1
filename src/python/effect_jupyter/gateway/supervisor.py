"""Runs a gateway, and ends it with all its descendants when the program ends.

Usage: supervisor.py RUNTIME_DIR SCRIPT [ARG ...]

Claims RUNTIME_DIR, which lies in a directory that all gateways of a user share, runs SCRIPT with this interpreter and
the arguments in a child process, and ends when the child ends, when it is asked to (SIGTERM, SIGINT), or when its
standard input closes, which happens however the parent dies. The supervisor of a gateway that programs share
(`shared.py`) leaves its parent instead, and ends when the gateway is unused. Whatever the reason, it then kills every process that
descends from it, removes RUNTIME_DIR and exits with the child's status. If it is killed itself, the system kills the
gateway and its kernels, and another process that waits for that kills what these had started. Standard library only:
it has to stay small and to work when nothing else does.
"""

import os
import sys

# The folder that has nothing but our package, in place of the one of this file.
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path[: not getattr(sys.flags, "safe_path", sys.flags.isolated)] = [ROOT]
sys.dont_write_bytecode = True

import fcntl
import re
import runpy
import select
import signal
import subprocess
import time

from effect_jupyter.gateway.folders import hold, make_private, remove_unless_held
from effect_jupyter.gateway.processes import kill_processes_of
from effect_jupyter.sandbox.placeholders import registries, remove_all
from effect_jupyter.system import PR_SET_CHILD_SUBREAPER, die_with, prctl, process_ids, remove_tree, stat_fields

# Seconds after which a directory without a lock counts as abandoned.
CLAIM_BOUND = 60
LINUX = sys.platform.startswith("linux")


def become_gateway(script, arguments, supervisor, shared):
    """Runs the gateway in the forked child, with the same interpreter."""
    die_with(supervisor)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    if shared is not None:
        shared.become_gateway()
    os.close(signal.set_wakeup_fd(-1))
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    sys.argv = [script, *arguments]
    runpy.run_path(script, run_name="__main__")


def start_guard(runtime_dir, lock, shared):
    """Starts a process that kills the processes of all kernels when this one is killed.

    They may not be descendants of this process any more. If this process ends otherwise, that one ends as well.
    """
    reader, writer = os.pipe()
    if os.fork() != 0:
        os.close(reader)
        return
    try:
        # It has its own process group, without signals to that of the supervisor, and keeps no streams open.
        os.setsid()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        null = os.open(os.devnull, os.O_RDWR)
        for stream in range(3):
            os.dup2(null, stream)
        os.close(writer)
        os.close(lock)
        if shared is not None:
            shared.close_in_child()
        os.read(reader, 1)
        kill_processes_of(*kernels(runtime_dir))
    finally:
        os._exit(0)


def kernels(runtime_dir):
    """Returns the kernels that have a connection file."""
    found = (re.fullmatch(r"kernel-(.+)\.json", name) for name in os.listdir(runtime_dir))
    return [match[1] for match in found if match is not None]


def parents():
    """Returns the parent of every process by pid."""
    if LINUX:
        found = {}
        for pid in process_ids():
            try:
                found[pid] = int(stat_fields(pid)[1])
            except OSError:
                pass  # it ended
        return found
    with subprocess.Popen(["/bin/ps", "-axo", "pid=,ppid="], stdout=subprocess.PIPE, text=True) as ps:
        found = {int(pid): int(parent) for pid, parent in (line.split() for line in ps.stdout or ())}
    found.pop(ps.pid, None)
    return found


def descendants():
    tree = parents()
    found, todo = [], [os.getpid()]
    while todo:
        parent = todo.pop()
        children = [pid for pid, its_parent in tree.items() if its_parent == parent]
        found += children
        todo += children
    return found


def kill_all():
    """Kills descendants until none is left: a process may fork while it is killed."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        alive = descendants()
        for pid in alive:
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                pass  # it ended, or belongs to another user
        try:
            while os.waitpid(-1, os.WNOHANG)[0] != 0:
                pass
        except ChildProcessError:
            if not descendants():
                return
        time.sleep(0.005)


def reap(gateway):
    """Collects dead children. Returns the exit status of the gateway if it is among them."""
    status = None
    try:
        while True:
            pid, its_status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return status
            if pid == gateway:
                status = its_status
    except ChildProcessError:
        return status


def wait_for_gateway(gateway, lifeline, wakeup):
    """Waits for one of the three reasons to end. Returns the gateway's exit status if it has ended."""
    while True:
        status = reap(gateway)
        if status is not None:
            return status
        ready, _, _ = select.select([lifeline, wakeup], [], [])
        if wakeup in ready and any(number != signal.SIGCHLD for number in os.read(wakeup, 512)):
            return None
        if lifeline in ready and os.read(lifeline, 512) == b"":
            return None


def claim(runtime_dir):
    """Locks the directory, which may exist already, until this process ends. Returns the lock's descriptor."""
    while True:
        make_private(runtime_dir)
        path = os.path.join(runtime_dir, "lock")
        lock = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        # Another supervisor may have removed it before it was locked.
        if os.path.exists(path) and os.path.samestat(os.stat(path), os.fstat(lock)):
            return lock
        os.close(lock)
        remove_tree(runtime_dir)


def remove(runtime_dir):
    """Removes the directory, placeholders of sandboxes, and the directory that gateways share if it is empty."""
    registry = os.path.dirname(runtime_dir)
    remove_tree(runtime_dir)
    remove_all(registry)
    try:
        os.rmdir(registry)
    except OSError:
        pass  # it has directories of other gateways


def remove_abandoned(runtime_dir):
    """Removes the directories that are not locked: their supervisors were killed."""
    for registry in registries(os.path.dirname(os.path.dirname(runtime_dir))):
        try:
            for entry in os.scandir(registry):
                if entry.is_dir(follow_symlinks=False):
                    remove_if_abandoned(entry.path)
            os.rmdir(registry)
        except OSError:
            pass  # in use, or gone


def remove_if_abandoned(runtime_dir):
    try:
        lock = os.open(os.path.join(runtime_dir, "lock"), os.O_RDWR | os.O_NOFOLLOW)
    except FileNotFoundError:
        if time.time() - os.stat(runtime_dir).st_mtime > CLAIM_BOUND:
            remove(runtime_dir)
        return
    except OSError:
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        remove(runtime_dir)
    except OSError:
        pass  # in use
    finally:
        os.close(lock)


def start_shared():
    """Leaves the program; returns None if the gateway is the program's own."""
    if "EFFECT_JUPYTER_SHARED" not in os.environ:
        return None
    from effect_jupyter.gateway import shared  # imported here: most gateways do without

    return shared.start(os.environ.pop("EFFECT_JUPYTER_SHARED"))


def hold_hidden():
    """Keeps the folder of shared gateways, which a sandbox cannot hide before it exists. Returns it and its lock."""
    folder = os.environ.pop("EFFECT_JUPYTER_HIDDEN", None)
    try:
        return None if folder is None else (folder, hold(folder))
    except OSError:
        return None  # it is another user's, and has no gateway of this one


def main():
    runtime_dir, script, *arguments = sys.argv[1:]
    shared = start_shared()
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    lock = claim(runtime_dir)
    hidden = hold_hidden()
    wakeup, wakeup_writer = os.pipe()
    os.set_blocking(wakeup_writer, False)
    signal.set_wakeup_fd(wakeup_writer, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    supervisor = os.getpid()
    gateway = os.fork()
    if gateway == 0:
        os.close(wakeup)
        become_gateway(script, arguments, supervisor, shared)
        return 0
    # After the fork of the gateway, which does not inherit it.
    start_guard(runtime_dir, lock, shared)
    status = None
    try:
        remove_abandoned(runtime_dir)
        if shared is None:
            status = wait_for_gateway(gateway, 0, wakeup)
        else:
            status = shared.wait(gateway, wakeup, reap)
            shared.end(status)
    finally:
        try:
            kill_all()
        finally:
            remove(runtime_dir)
            if hidden is not None:
                folder, held = hidden
                os.close(held)
                remove_unless_held(folder)
            if shared is not None:
                shared.remove()
    return 0 if status is None else os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    code = main()
    # The status of a signal is 128 + its number, as in a shell.
    sys.exit(code if code >= 0 else 128 - code)
