"""The gateway's side of `zygote.py`: kernels that are forked instead of started, and are processes like others.

Whatever is in the way of a fork, the kernel is started plainly. Standard library only, and little of it: the zygote
loads beside the gateway, and is to begin first.
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
# Something has read these while the zygote was loading; only a new process would look again.
READ_EARLY = re.compile(
    "PYTHON.*|LD_.*|GLIBC_.*|MALLOC_.*|LANG|LANGUAGE|LC_.*|HOME|TMPDIR|XDG_.*|IPYTHON.*|JUPYTER_.*|MPL.*"
    "|OMP_.*|GOMP_.*|KMP_.*|OPENBLAS_.*|GOTO_.*|MKL_.*|BLIS_.*|NUMEXPR_.*|VECLIB_.*|CUDA_.*|TF_.*|TORCH_.*",
    re.DOTALL,
)
# A kernel's mark is written over the zygote's.
MARK, MARK_LENGTH = "EFFECT_JUPYTER_KERNEL", 36
# Seconds that a fork may take, and a little longer until its answer is here: nothing else is done meanwhile.
PATIENCE, MARGIN = 1.0, 0.3
# Seconds between looks whether what is forked still runs.
GLANCE = 0.02
# Seconds without a word after which another process takes the place of this one, and from one such to the next.
SILENCE, PAUSE = 3.0, 10.0
# Seconds that such a process may take to load; nothing waits for it.
LOADING = 60.0
# What Jupyter adds to the environment of a kernel.
ADDED = re.compile("KERNEL_GATEWAY|JPY_.*|EFFECT_JUPYTER_.*")
# More than a message of the system's sockets can be.
LARGEST = 1024 * 1024


class Zygote:
    """What kernels are forked from: a process, and another one in its place when it ends or does not answer."""

    def __init__(self, modules, *, env, cwd):
        self._start = functools.partial(Process, modules, env=env, cwd=cwd, on_trouble=self._replace)
        self._process = self._start()
        self._started_at = time.monotonic()
        self._is_first = True
        # Why there will be no more forks; None as long as there may be.
        self.failure = None

    @property
    def refusal(self):
        """Why there are none if that is for a module that the user named."""
        return self._process.refusal

    def wait_until_ready(self):
        """Blocks; for as long as loading takes."""
        self._process.wait_until_ready()

    def is_loading(self):
        """Whether a kernel does better to wait: one that is started meanwhile is no later than the second process."""
        return self._is_first and self.failure is None and self._process.is_loading()

    def fork(self, argv, env, cwd, stderr=None):
        """The process of a new kernel, or None if there can be none by this way."""
        if self.failure is None and not self._is_first:
            self._see_to_replacement()
        return None if self.failure is not None else self._process.fork(argv, env, cwd, stderr)

    def _see_to_replacement(self):
        """One that cannot be loaded now may be so later."""
        if self._process.failure is not None:
            self._replace(self._process)
        elif self._process.is_loading() and time.monotonic() - self._started_at > LOADING:
            self._process.give_up(f"Nothing was loaded within {LOADING:g} s")

    def give_up(self, why):
        """Whoever comes is started plainly from now on."""
        self.failure = why
        self._process.give_up(why)

    def _replace(self, process):
        """Leaves a process that is in trouble to its kernels, and starts another one that gets ready meanwhile."""
        if process is not self._process or self.failure is not None:
            return
        if self._is_first and not process.is_ready:
            self.failure = process.failure or "It did not answer"
            return
        if not self._is_first and time.monotonic() - self._started_at < PAUSE:
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
    """One that kernels are forked from. Starts to load at once."""

    def __init__(self, modules: list[str], *, env: dict[str, str], cwd: str, on_trouble):
        self._env = env
        self._on_trouble = on_trouble
        # Nobody knows what these have read: every variable counts.
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
                    # Standard output is where the gateway talks to the program.
                    stdout=sys.stderr.fileno(),
                    pass_fds=[descriptor],
                )
            except BaseException:
                self._socket.close()
                raise
        # All that it forked and that have not ended.
        self._forked = {}
        self._request = 0
        # The process that the last request made, and whether it is a kernel by now.
        self._answer = None
        self._is_confirmed = False
        # Why the last request made none.
        self._unforked = None
        # Since when it has said nothing although it was asked.
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

    def fork(self, argv, env, cwd, stderr):
        self.listen()
        if self.failure is not None or not self.is_ready or self._stalled_at is not None or not self._is_suitable(env):
            return None
        self._request += 1
        self._answer = self._unforked = None
        self._is_confirmed = False
        until = time.monotonic() + PATIENCE
        request = {"request": self._request, "argv": argv, "env": env, "cwd": cwd, "until": until}
        files = [] if stderr is None else [stderr]
        try:
            socket.send_fds(self._socket, [json.dumps({**request, "stderr": stderr is not None}).encode()], files)
        except OSError as error:
            # Nothing is wrong with the next one if this one was too large.
            return self._start_without_fork(error)
        while not self._is_confirmed and self._unforked is None and self.failure is None:
            if self._answer is not None and self._answer.look() is not None:
                return self._start_without_fork("it ended at once")
            left = until + MARGIN - time.monotonic()
            if left <= 0 and not self._has_more():
                self._stalled_at = time.monotonic() if self._answer is None else None
                return self._start_without_fork(f"nothing was forked within {PATIENCE:g} s")
            self._wait(max(0.001, min(left, GLANCE)))
        if self._answer is None or not self._is_confirmed:
            return self._start_without_fork(self._unforked or self.failure)
        # That it was forked may still be told afterwards.
        self._answer.is_kernel = True
        return self._answer

    def _has_more(self):
        """Whether an answer is there that this process was too busy to read."""
        self._socket.setblocking(False)
        try:
            return bool(self._socket.recv(1, socket.MSG_PEEK))
        except OSError:
            return False

    def _wait(self, seconds):
        """Until something has come; its number may be too high for `select`."""
        self._socket.settimeout(seconds)
        try:
            self._receive()
        except TimeoutError:
            pass
        finally:
            if self.failure is None:
                self._socket.setblocking(False)

    def _start_without_fork(self, why):
        """What comes of this request after all is not wanted any more."""
        self._request += 1
        if self._answer is not None and not self._is_confirmed:
            self._end(self._answer)
        print(f"A kernel is started plainly: {why}", file=sys.stderr)

    def listen(self):
        """Takes what has come."""
        try:
            while self.failure is None:
                self._receive()
        except BlockingIOError:
            for process in self._unwanted:
                process.look()
            self._unwanted = [process for process in self._unwanted if process.returncode is None]
            self._reap()
        if self._stalled_at is not None and time.monotonic() - self._stalled_at > SILENCE:
            self._on_trouble(self)

    def _is_suitable(self, env):
        """Whether a copy can be a kernel with this environment."""
        if len(env.get(MARK, "").encode()) != MARK_LENGTH:
            return False
        for name in {*env, *self._env}:
            if self._counts.fullmatch(name) and not ADDED.fullmatch(name) and env.get(name) != self._env.get(name):
                self._start_without_fork(f'"{name}" is another than when modules were loaded')
                return False
        return True

    def _reap(self):
        try:
            while self._unreaped and self.failure is None:
                self._socket.send(json.dumps({"reap": self._unreaped[0]}).encode())
                del self._unreaped[0]
        except OSError:
            pass  # it does not listen now

    def _receive(self):
        try:
            data = self._socket.recv(LARGEST)
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
        """Ends a process that no kernel is known of."""
        if process.look() is None:
            os.kill(process.pid, signal.SIGKILL)
            self._unwanted.append(process)

    def ended(self, pid):
        """Called for each process that was seen to have ended; its number is free then."""
        if self._forked.pop(pid, None) is not None:
            self._unreaped.append(pid)
            self._reap()
            self._end_if_idle()

    def retire(self):
        """Ends with its last kernel: kernels end with it."""
        self._is_retired = True
        self._end_if_idle()

    def _end_if_idle(self):
        if self._is_retired and not self._forked and self.failure is None:
            self.give_up("Another process is there for that")

    def give_up(self, why):
        """Its kernels end with it."""
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
    """The return code of a process that ended and that nobody has collected; None as long as it runs.

    Read from the system: the process that it is a child of may be stopped.
    """
    try:
        fields = stat_fields(pid)
    except (FileNotFoundError, ProcessLookupError):
        return -signal.SIGKILL
    except OSError:
        return None  # there is no descriptor for it now
    # A first thread may end before the others.
    is_over = fields[0] in (b"Z", b"X") and int(fields[17]) <= 1
    return os.waitstatus_to_exitcode(int(fields[49])) if is_over else None


class ForkedProcess:
    """What Jupyter needs of `subprocess.Popen`, for a process that is no child of this one."""

    stdin = stdout = stderr = None

    def __init__(self, pid, zygote):
        self.pid = pid
        self.returncode = None
        # Whether it was given to whoever asked for a kernel.
        self.is_kernel = False
        self._zygote = zygote

    def poll(self):
        if self.returncode is None:
            self._zygote.listen()
        return self.look()

    def look(self):
        """The same, whatever its zygote has to say."""
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
