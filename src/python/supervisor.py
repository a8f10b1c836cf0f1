"""Keeps a gateway and everything it starts on a leash.

Usage: supervisor.py RUNTIME_DIR SCRIPT [ARG ...]

Creates RUNTIME_DIR, runs SCRIPT with this interpreter and the arguments in a child process, and ends when
the child ends, when it is asked to (SIGTERM, SIGINT), or when its standard input closes, which happens
however the parent dies. Whatever the reason, it then kills every process that descends from it, removes
RUNTIME_DIR and exits with the child's status. Standard library only: it has to stay small and to work when
nothing else does.
"""

import ctypes
import fcntl
import json
import os
import re
import runpy
import select
import shutil
import signal
import stat
import subprocess
import sys
import time

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
LINUX = sys.platform.startswith("linux")


def prctl(option, value):
    if LINUX:
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def become_gateway(script, arguments, supervisor):
    """The child's side of the fork: the gateway, in this very interpreter."""
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != supervisor:  # it died before the line above
        os._exit(1)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.close(signal.set_wakeup_fd(-1))
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    # Only what is installed is imported, nothing from this folder.
    sys.path.pop(0)
    sys.argv = [script, *arguments]
    runpy.run_path(script, run_name="__main__")


def parents():
    """The parent of every process, by pid."""
    if LINUX:
        found = {}
        for name in os.listdir("/proc"):
            if name.isdigit():
                try:
                    with open(f"/proc/{name}/stat", "rb") as file:
                        # The name of a command may hold blanks and parentheses.
                        fields = file.read().rpartition(b")")[2].split()
                    found[int(name)] = int(fields[1])
                except OSError:
                    pass
        return found
    with subprocess.Popen(["/bin/ps", "-axo", "pid=,ppid="], stdout=subprocess.PIPE, text=True) as ps:
        found = {int(pid): int(parent) for pid, parent in (line.split() for line in ps.stdout)}
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
    """Kills until nothing is left; a process may fork while it is being killed."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        alive = descendants()
        for pid in alive:
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                pass  # it is gone, or somebody else's
        try:
            while os.waitpid(-1, os.WNOHANG)[0] != 0:
                pass
        except ChildProcessError:
            if not descendants():
                return
        time.sleep(0.005)


def reap(gateway):
    """Collects dead children; the exit status of the gateway if it is among them."""
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
    """Waits for one of the three reasons to end; the gateway's exit status if that was it."""
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
    """Creates the directory and locks it for as long as this process lives."""
    while True:
        os.mkdir(runtime_dir, 0o700)
        path = os.path.join(runtime_dir, "lock")
        lock = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        # Before it was locked it looked abandoned, and another supervisor may have removed it.
        if os.path.exists(path) and os.path.samestat(os.stat(path), os.fstat(lock)):
            return
        os.close(lock)
        shutil.rmtree(runtime_dir, ignore_errors=True)


def remove(runtime_dir):
    """Removes the directory, and what sandboxes left in a workspace: it would look like somebody's."""
    try:
        with open(os.path.join(runtime_dir, "placeholders")) as file:
            placeholders = [json.loads(line) for line in file]
    except (OSError, ValueError):
        placeholders = []
    # The deepest first.
    for path in sorted(placeholders, reverse=True):
        remove_placeholder(path)
    # Not by Python's own functions: folders in folders in folders exceed its stack.
    for command in (["/bin/rm", "-rf"], ["/bin/chmod", "-R", "u+rwX"], ["/bin/rm", "-rf"]):
        if os.path.lexists(runtime_dir):
            subprocess.run([*command, "--", runtime_dir], stderr=subprocess.DEVNULL)


def remove_placeholder(path):
    """Removes an empty file or folder; sandboxed code may have made links on the way, or make them now."""
    folder, name = os.path.split(path)
    try:
        place = os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for step in filter(None, folder.split("/")):
                outer = place
                try:
                    place = os.open(step, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=outer)
                finally:
                    if place != outer:
                        os.close(outer)
            status = os.stat(name, dir_fd=place, follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):
                os.rmdir(name, dir_fd=place)  # only if it is empty
            elif stat.S_ISREG(status.st_mode) and status.st_size == 0:
                os.unlink(name, dir_fd=place)
        finally:
            os.close(place)
    except (OSError, ValueError):
        pass


def remove_abandoned(runtime_dir):
    """Removes directories whose supervisor was killed: those that nobody has locked."""
    for entry in os.scandir(os.path.dirname(runtime_dir)):
        if not re.fullmatch(r"effect-jupyter-[0-9a-f]{8}", entry.name):
            continue
        try:
            if entry.is_symlink() or entry.stat().st_uid != os.getuid():
                continue
            lock = os.open(os.path.join(entry.path, "lock"), os.O_RDWR | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                remove(entry.path)
            finally:
                os.close(lock)
        except Exception:
            pass  # in use, just created, gone, or not to be removed


def main():
    runtime_dir, script, *arguments = sys.argv[1:]
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    claim(runtime_dir)
    wakeup, wakeup_writer = os.pipe()
    os.set_blocking(wakeup_writer, False)
    signal.set_wakeup_fd(wakeup_writer, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    supervisor = os.getpid()
    gateway = os.fork()
    if gateway == 0:
        os.close(wakeup)
        become_gateway(script, arguments, supervisor)
        return 0
    status = None
    try:
        remove_abandoned(runtime_dir)
        status = wait_for_gateway(gateway, 0, wakeup)
    finally:
        try:
            kill_all()
        finally:
            remove(runtime_dir)
    return 0 if status is None else os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    code = main()
    # A signal shows as 128 + its number, as in a shell.
    sys.exit(code if code >= 0 else 128 - code)
