"""What the system gives to the process of a gateway, which has sockets for all kernels, and how it refuses more."""

import contextlib
import errno
import os
import resource
import sys

import zmq
from tornado.web import HTTPError

# Descriptors that a kernel takes in the gateway, with its connection, and what is left for requests to be answered.
OF_KERNEL, RESERVE = 24, 64
# Bytes of a variable of the environment, its name included: the system starts no program with a longer one.
LONGEST_VARIABLE = 128 * 1024
WHAT = {
    errno.EAGAIN: "processes",
    errno.ENOMEM: "memory",
    errno.EMFILE: "descriptors",
    errno.ENFILE: "descriptors",
    errno.ENOSPC: "space on the disk",
    errno.EDQUOT: "space on the disk",
}


class Told(HTTPError):
    """An answer in words of others, which tornado would take for a format."""

    def __init__(self, status, words):
        self._words = words
        super().__init__(status)

    log_message = property(lambda self: self._words, lambda self, _: None)


class Room:
    """As many descriptors as the system allows for this process, and as many as before for the kernels."""

    def __init__(self):
        self._starting = 0
        self._before = resource.getrlimit(resource.RLIMIT_NOFILE)
        # Only where they can be taken back from a kernel.
        if hasattr(resource, "prlimit"):
            resource.setrlimit(resource.RLIMIT_NOFILE, (self._before[1], self._before[1]))

    def take_back(self, pid):
        """Gives a process that was just started the limit that it would have had."""
        if hasattr(resource, "prlimit"):
            try:
                resource.prlimit(pid, resource.RLIMIT_NOFILE, self._before)
            except (OSError, ValueError):
                pass  # it ended

    @contextlib.contextmanager
    def for_kernel(self, env):
        """Refuses a start for which the system has no room, before it is attempted and while it is."""
        why = too_long(env)
        if why is not None:
            raise Told(400, why)
        if not self._has_descriptors(self._starting + 1):
            raise Told(429, f"The gateway has no descriptors left for another kernel; {advice('descriptors')}")
        self._starting += 1
        try:
            yield
        except (OSError, zmq.ZMQError) as error:
            refused = refusal(error)
            if refused is None:
                raise
            raise Told(*refused) from None
        finally:
            self._starting -= 1

    def _has_descriptors(self, count):
        """Whether enough are left if so many kernels start."""
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if limit == resource.RLIM_INFINITY:
            return True
        try:
            used = len(os.listdir("/proc/self/fd" if sys.platform == "linux" else "/dev/fd"))
        except OSError as error:
            return error.errno != errno.EMFILE
        return used + count * OF_KERNEL + RESERVE <= limit


def too_long(env):
    """Why no program can be started with this environment; None if one can."""
    for name, value in env.items():
        size = len(f"{name}={value}".encode(errors="surrogateescape")) + 1
        if size > LONGEST_VARIABLE:
            return (
                f'The variable "{name}" has {size} bytes, and the system starts no program with more than '
                f"{LONGEST_VARIABLE}; shorten it, or write it to a file"
            )
    return None


def refusal(error):
    """The status and the words for what the system refused while a kernel started; None for anything else."""
    if error.errno == errno.E2BIG:
        return 400, "The environment of the kernel is longer than the system allows; give fewer variables, or files"
    if error.errno in WHAT:
        what = WHAT[error.errno]
        return 429, f"The gateway has no {what} left for another kernel: {os.strerror(error.errno)}; {advice(what)}"
    return None


def advice(what):
    limits = {"descriptors": ', raise its limit ("ulimit -n")', "processes": ', raise the limit ("ulimit -u")'}
    return f"end kernels{limits.get(what, '')}, or use another gateway as well"
