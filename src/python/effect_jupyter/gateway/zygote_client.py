"""The gateway's side of `zygote.py`: forks kernels, and manages their processes like others.

If a fork fails, the kernel is started without it. Standard library only, and little of it: the zygote loads at the same
time as the gateway, and begins first.
"""

import functools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time

from effect_jupyter.system import stat_fields

HERE = os.path.dirname(os.path.abspath(__file__))
# Variables that were read while the zygote loaded; only a new process would read them again.
READ_EARLY = re.compile(
    "PYTHON.*|VIRTUAL_ENV|LD_.*|GLIBC_.*|MALLOC_.*|LANG|LANGUAGE|LC_.*|HOME|TMPDIR|XDG_.*|IPYTHON.*|JUPYTER_.*|MPL.*"
    "|OMP_.*|GOMP_.*|KMP_.*|OPENBLAS_.*|GOTO_.*|MKL_.*|BLIS_.*|NUMEXPR_.*|VECLIB_.*|CUDA_.*|TF_.*|TORCH_.*",
    re.DOTALL,
)
# The mark of a kernel overwrites that of the zygote.
MARK, MARK_LENGTH = "EFFECT_JUPYTER_KERNEL", 36
# Maximum seconds of a fork, and of the delivery of its answer after that; both block the gateway.
FORK_TIMEOUT, DELIVERY_TIMEOUT = 1.0, 0.3
# Seconds between checks that the forked process still runs.
CHECK_INTERVAL = 0.02
# Seconds without an answer after which a process is replaced, and minimum seconds between replacements.
ANSWER_TIMEOUT, REPLACEMENT_INTERVAL = 3.0, 10.0
# Maximum seconds for a replacement to load, which no request waits for.
LOAD_TIMEOUT = 60.0
# Variables that Jupyter adds to the environment of a kernel.
ADDED = re.compile("KERNEL_GATEWAY|JPY_.*|EFFECT_JUPYTER_.*")
# More than the maximum size of a message of a socket.
MAX_MESSAGE = 1024 * 1024


class Zygote:
    """The process that kernels are forked from. It is replaced when it ends or does not answer."""

    def __init__(self, modules, *, env, cwd):
        self._start = functools.partial(Process, modules, env=env, cwd=cwd, on_trouble=self._replace)
        self._process = self._start()
        self._started_at = time.monotonic()
        self._is_first = True
        # The reason for which no more kernels are forked; None if they are.
        self.failure = None

    @property
    def refusal(self):
        """Returns the error of a module of the user that cannot be imported; None if there is none."""
        return self._process.refusal

    def wait_until_ready(self):
        """Blocks until the process has loaded."""
        self._process.wait_until_ready()

    def is_loading(self):
        """Tells whether a kernel should wait: the first process is loading. A replacement takes longer than a start."""
        return self._is_first and self.failure is None and self._process.is_loading()

    def fork(self, argv, env, cwd, stderr=None, listener=None):
        """Returns the process of a new kernel; None if it cannot be forked."""
        if self.failure is None and not self._is_first:
            self._check_replacement()
        return None if self.failure is not None else self._process.fork(argv, env, cwd, stderr, listener)

    def _check_replacement(self):
        """Replaces a replacement that failed to load or takes too long: another may succeed."""
        if self._process.failure is not None:
            self._replace(self._process)
        elif self._process.is_loading() and time.monotonic() - self._started_at > LOAD_TIMEOUT:
            self._process.give_up(f"Nothing was loaded within {LOAD_TIMEOUT:g} s")

    def give_up(self, why):
        """Starts kernels without a fork from now on."""
        self.failure = why
        self._process.give_up(why)

    def _replace(self, process):
        """Starts another process, and retires the one that failed; its kernels keep running."""
        if process is not self._process or self.failure is not None:
            return
        if self._is_first and not process.is_ready:
            self.failure = process.failure or "It did not answer"
            return
        if not self._is_first and time.monotonic() - self._started_at < REPLACEMENT_INTERVAL:
            return
        self._is_first = False
        self._started_at = time.monotonic()
        try:
            self._process = self._start()
        except OSError as error:
            print(f"There is no other process to fork kernels from: {error}", file=sys.stderr)
            return
        process.retire()


class Process:
    """A process that kernels are forked from. It starts to load at once."""

    def __init__(self, modules: list[str], *, env: dict[str, str], cwd: str, on_trouble):
        self._env = env
        self._on_trouble = on_trouble
        # The variables that these modules read are not known, so that all of them count.
        self._counts = re.compile(".*", re.DOTALL) if modules else READ_EARLY
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.setblocking(False)
        with theirs:
            descriptor = theirs.fileno()
            try:
                self._process = subprocess.Popen(
                    [sys.executable, os.path.join(HERE, "zygote.py"), str(descriptor), *modules],
                    env={**self._env, "EFFECT_JUPYTER_GATEWAY": str(os.getpid()), MARK: "-" * MARK_LENGTH},
                    cwd=cwd,
                    stdin=subprocess.DEVNULL,
                    # Standard output is the connection of the gateway with the program.
                    stdout=sys.stderr.fileno(),
                    pass_fds=[descriptor],
                )
            except BaseException:
                self._socket.close()
                raise
        # The forked processes that have not ended.
        self._forked = {}
        self._request = 0
        # The process of the last request, and whether it has become a kernel.
        self._answer = None
        self._is_confirmed = False
        # The reason for which the last request failed.
        self._unforked = None
        # The time of the first request without an answer.
        self._stalled_at = None
        self._is_retired = False
        self._unwanted = []
        self._unreaped = []
        self.is_ready = False
        self.failure = None
        self.refusal = None

    def wait_until_ready(self):
        self._socket.setblocking(True)
        while not self.is_ready and self.failure is None:
            self._receive()
        if self.failure is None:
            self._socket.setblocking(False)

    def is_loading(self):
        self.listen()
        return not self.is_ready and self.failure is None

    def fork(self, argv, env, cwd, stderr, listener):
        self.listen()
        if self.failure is not None or not self.is_ready or self._stalled_at is not None or not self._is_suitable(env):
            return None
        self._request += 1
        self._answer = self._unforked = None
        self._is_confirmed = False
        until = time.monotonic() + FORK_TIMEOUT
        request = {"request": self._request, "argv": argv, "env": env, "cwd": cwd, "until": until}
        files = {"stderr": stderr, "listener": listener}
        files = {name: file for name, file in files.items() if file is not None}
        try:
            socket.send_fds(self._socket, [json.dumps({**request, "files": [*files]}).encode()], [*files.values()])
        except OSError as error:
            # A request that is too large does not affect the next one.
            return self._start_without_fork(error)
        while not self._is_confirmed and self._unforked is None and self.failure is None:
            if self._answer is not None and self._answer.look() is not None:
                return self._start_without_fork("it ended at once")
            left = until + DELIVERY_TIMEOUT - time.monotonic()
            if left <= 0 and not self._has_more():
                self._stalled_at = time.monotonic() if self._answer is None else None
                return self._start_without_fork(f"nothing was forked within {FORK_TIMEOUT:g} s")
            self._wait(max(0.001, min(left, CHECK_INTERVAL)))
        if self._answer is None or not self._is_confirmed:
            return self._start_without_fork(self._unforked or self.failure)
        # The message that it was forked may still arrive.
        self._answer.is_kernel = True
        return self._answer

    def _has_more(self):
        """Tells whether there is an unread answer, if this process was too busy to read it."""
        self._socket.setblocking(False)
        try:
            return bool(self._socket.recv(1, socket.MSG_PEEK))
        except OSError:
            return False

    def _wait(self, seconds):
        """Waits until a message arrives. The descriptor may be too high for `select`."""
        self._socket.settimeout(seconds)
        try:
            self._receive()
        except TimeoutError:
            pass
        finally:
            if self.failure is None:
                self._socket.setblocking(False)

    def _start_without_fork(self, why):
        """Abandons the request: a process that it still creates is ended."""
        self._request += 1
        if self._answer is not None and not self._is_confirmed:
            self._end(self._answer)
        print(f"A kernel is started without a fork: {why}", file=sys.stderr)

    def listen(self):
        """Reads the messages that have arrived."""
        try:
            while self.failure is None:
                self._receive()
        except BlockingIOError:
            for process in self._unwanted:
                process.look()
            self._unwanted = [process for process in self._unwanted if process.returncode is None]
            self._reap()
        if self._stalled_at is not None and time.monotonic() - self._stalled_at > ANSWER_TIMEOUT:
            self._on_trouble(self)

    def _is_suitable(self, env):
        """Tells whether a forked process can have this environment."""
        if len(env.get(MARK, "").encode()) != MARK_LENGTH:
            return False
        for name in {*env, *self._env}:
            if self._counts.fullmatch(name) and not ADDED.fullmatch(name) and env.get(name) != self._env.get(name):
                self._start_without_fork(f'"{name}" differs from its value when modules were loaded')
                return False
        return True

    def _reap(self):
        try:
            while self._unreaped and self.failure is None:
                self._socket.send(json.dumps({"reap": self._unreaped[0]}).encode())
                del self._unreaped[0]
        except OSError:
            pass  # its socket is full; it is tried again

    def _receive(self):
        try:
            data = self._socket.recv(MAX_MESSAGE)
        except (BlockingIOError, TimeoutError):
            raise
        except OSError as error:
            return self.give_up(f"It did not answer: {error}")
        message = json.loads(data) if data else {"failed": "It ended"}
        self._stalled_at = None
        if "refused" in message:
            self.refusal = message["refused"]
            self.give_up(self.refusal)
        elif "failed" in message:
            self.give_up(message["failed"])
        elif "ready" in message:
            self.is_ready = True
        elif "forked" in message or "pid" in message:
            self._on_forked(message.get("forked", message.get("pid")), message["request"], "pid" in message)
        elif "unforked" in message and message["request"] in (None, self._request):
            self._unforked = message["unforked"]

    def _on_forked(self, pid, request, is_confirmed):
        process = self._forked.get(pid)
        if process is None and not is_confirmed or request == self._request:
            process = self._forked.setdefault(pid, ForkedProcess(pid, self))
        if request == self._request:
            self._answer, self._is_confirmed = process, self._is_confirmed or is_confirmed
        elif process is not None and not process.is_kernel:
            self._end(process)

    def _end(self, process):
        """Ends a process that is not used as a kernel."""
        if process.look() is None:
            os.kill(process.pid, signal.SIGKILL)
            self._unwanted.append(process)

    def ended(self, pid):
        """Called for each process that has ended, so that its number can be freed."""
        if self._forked.pop(pid, None) is not None:
            self._unreaped.append(pid)
            self._reap()
            self._end_if_idle()

    def retire(self):
        """Ends the process with its last kernel. Before, its kernels would end with it."""
        self._is_retired = True
        self._end_if_idle()

    def _end_if_idle(self):
        if self._is_retired and not self._forked and self.failure is None:
            self.give_up("It was replaced")

    def give_up(self, why):
        """Ends the process, and its kernels with it."""
        self.failure = why
        print(f"Kernels are not forked from process {self._process.pid} any more: {why}", file=sys.stderr)
        self._process.kill()
        self._process.wait()
        self._socket.close()
        for process in self._forked.values():
            process.returncode = -signal.SIGKILL
        self._forked.clear()
        self._on_trouble(self)


def end_of(pid):
    """Returns the return code of a process that ended and was not collected; None while it runs.

    It is read from the system, because its parent may be stopped.
    """
    try:
        fields = stat_fields(pid)
    except (FileNotFoundError, ProcessLookupError):
        return -signal.SIGKILL
    except OSError:
        return None  # there is no free file descriptor
    # The main thread may end before the others.
    is_over = fields[0] in (b"Z", b"X") and int(fields[17]) <= 1
    return os.waitstatus_to_exitcode(int(fields[49])) if is_over else None


class ForkedProcess:
    """The part of `subprocess.Popen` that Jupyter uses, for a process that is not a child of this one."""

    stdin = stdout = stderr = None

    def __init__(self, pid, zygote):
        self.pid = pid
        self.returncode = None
        # True if it was returned as a kernel.
        self.is_kernel = False
        self._zygote = zygote

    def poll(self):
        if self.returncode is None:
            self._zygote.listen()
        return self.look()

    def look(self):
        """Returns the return code as `poll` does, without reading messages of the zygote."""
        if self.returncode is None:
            self.returncode = end_of(self.pid)
            if self.returncode is not None:
                self._zygote.ended(self.pid)
        return self.returncode

    def wait(self):
        while self.poll() is None:
            time.sleep(0.005)
        return self.returncode

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self):
        self.send_signal(signal.SIGTERM)

    def kill(self):
        self.send_signal(signal.SIGKILL)
