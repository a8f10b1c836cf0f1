"""The gateway's side of `zygote.py`: kernels that are forked instead of started, and are processes like others.

Whatever is in the way of a fork, the kernel is started plainly. Standard library only, and little of it: the zygote
loads beside the gateway, and is to begin first.
"""

import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time

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
# What Jupyter adds to the environment of a kernel.
ADDED = re.compile("KERNEL_GATEWAY|JPY_.*|EFFECT_JUPYTER_.*")
# More than a message of the system's sockets can be.
LARGEST = 1024 * 1024


class Zygote:
    """Starts to load at once; `is_loading` tells whether it still does."""

    def __init__(self, modules, *, env, cwd):
        self._env = env
        # Nobody knows what these have read: every variable counts.
        self._counts = re.compile(".*", re.DOTALL) if modules else READ_EARLY
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.setblocking(False)
        with theirs:
            descriptor = theirs.fileno()
            self._process = subprocess.Popen(
                [sys.executable, os.path.join(HERE, "zygote.py"), str(descriptor), *modules],
                env={**self._env, "EFFECT_JUPYTER_GATEWAY": str(os.getpid()), MARK: "-" * MARK_LENGTH},
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                # Standard output is where the gateway talks to the program.
                stdout=sys.stderr.fileno(),
                pass_fds=[descriptor],
            )
        self._kernels = {}
        self._request = 0
        # The process that the last request made; 0 if it ended before it was a kernel.
        self._forked = None
        # Whether it has said nothing since it was too slow.
        self._is_stalled = False
        self._unreaped = []
        self.is_ready = False
        # Why there will be no more forks; None as long as there may be.
        self.failure = None
        # The same if it is for a module that the user named.
        self.refusal = None

    def wait_until_ready(self):
        """Blocks; for as long as loading takes."""
        self._socket.setblocking(True)
        while not self.is_ready and self.failure is None:
            self._hear()
        if self.failure is None:
            self._socket.setblocking(False)

    def is_loading(self):
        self.listen()
        return not self.is_ready and self.failure is None

    def fork(self, argv, env, cwd, stderr=None):
        """The process of a new kernel, or None if there can be none by this way."""
        self.listen()
        if self.failure is not None or not self.is_ready or self._is_stalled or not self._takes(env):
            return None
        self._request += 1
        self._forked = None
        until = time.monotonic() + PATIENCE
        try:
            request = {"request": self._request, "argv": argv, "env": env, "cwd": cwd, "until": until}
            files = [] if stderr is None else [stderr]
            socket.send_fds(self._socket, [json.dumps(request).encode()], files)
        except OSError as error:
            # Nothing is wrong with the next one if this one was too large.
            return self._plainly(error)
        while self._forked is None and self.failure is None:
            if not select.select([self._socket], [], [], max(0, until + MARGIN - time.monotonic()))[0]:
                self._is_stalled = True
                return self._plainly(f"nothing was forked within {PATIENCE:g} s")
            self._hear()
        return self._kernels.get(self._forked) or self._plainly("it ended at once")

    def _plainly(self, why):
        """What comes of this request after all is not wanted any more."""
        self._request += 1
        print(f"A kernel is started plainly: {why}", file=sys.stderr)

    def listen(self):
        """Takes what has come."""
        try:
            while self.failure is None:
                self._hear()
        except BlockingIOError:
            self._reap()

    def _takes(self, env):
        """Whether a copy can be a kernel with this environment."""
        if len(env.get(MARK, "").encode()) != MARK_LENGTH:
            return False
        for name in {*env, *self._env}:
            if self._counts.fullmatch(name) and not ADDED.fullmatch(name) and env.get(name) != self._env.get(name):
                self._plainly(f'"{name}" is another than when modules were loaded')
                return False
        return True

    def _tell(self, **message):
        self._socket.send(json.dumps(message).encode())

    def _reap(self):
        try:
            while self._unreaped:
                self._tell(reap=self._unreaped[0])
                del self._unreaped[0]
        except OSError:
            pass  # it does not listen now

    def _hear(self):
        try:
            data = self._socket.recv(LARGEST)
        except BlockingIOError:
            raise
        except OSError as error:
            return self.give_up(f"It did not answer: {error}")
        message = json.loads(data) if data else {"failed": "It ended"}
        self._is_stalled = False
        if "refused" in message:
            self.refusal = message["refused"]
            self.give_up(self.refusal)
        elif "failed" in message:
            self.give_up(message["failed"])
        elif "ready" in message:
            self.is_ready = True
        elif "pid" in message:
            self._born(message["pid"], message["request"])
        elif "exited" in message:
            self._ended(message["exited"], message["code"], message["request"])

    def _born(self, pid, request):
        if request == self._request:
            self._forked = pid
            self._kernels[pid] = ForkedProcess(pid, self)
        else:
            os.kill(pid, signal.SIGKILL)

    def _ended(self, pid, code, request):
        process = self._kernels.pop(pid, None)
        if process is not None:
            process.returncode = code
        elif request == self._request:
            self._forked = 0
        self._unreaped.append(pid)
        self._reap()

    def give_up(self, why):
        """Its kernels end with it; whoever comes is started plainly."""
        self.failure = why
        print(f"Kernels are not forked: {why}", file=sys.stderr)
        self._process.kill()
        self._process.wait()
        self._socket.close()
        for process in self._kernels.values():
            process.returncode = -signal.SIGKILL
        self._kernels.clear()


class ForkedProcess:
    """What Jupyter needs of `subprocess.Popen`, for a process that is no child of this one."""

    stdin = stdout = stderr = None

    def __init__(self, pid, zygote):
        self.pid = pid
        self.returncode = None
        self._zygote = zygote

    def poll(self):
        if self.returncode is None:
            self._zygote.listen()
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
