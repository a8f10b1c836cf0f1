"""The limits of the gateway's process, which has the sockets of all kernels, and the errors when they are reached."""

import contextlib
import errno
import os
import resource
import sys

import zmq
from tornado.web import HTTPError

# File descriptors that a kernel and its connection take in the gateway, and a reserve for requests.
OF_KERNEL, RESERVE = 24, 64
# Maximum bytes of an environment variable with its name: the system starts no program with a longer one.
MAX_VARIABLE = 128 * 1024
WHAT = {
    errno.EAGAIN: "processes",
    errno.ENOMEM: "memory",
    errno.EMFILE: "descriptors",
    errno.ENFILE: "descriptors",
    errno.ENOSPC: "space on the disk",
    errno.EDQUOT: "space on the disk",
}


class Told(HTTPError):
    """An error response whose text tornado does not interpret as a format."""

    def __init__(self, status, words):
        self._words = words
        super().__init__(status)

    log_message = property(lambda self: self._words, lambda self, _: None)


class Room:
    """Raises the limit of file descriptors of this process, and keeps the original one for kernels."""

    def __init__(self):
        self._starting = 0
        self._before = resource.getrlimit(resource.RLIMIT_NOFILE)
        # Only if the limit of a kernel can be set back.
        if hasattr(resource, "prlimit"):
            resource.setrlimit(resource.RLIMIT_NOFILE, (self._before[1], self._before[1]))

    def take_back(self, pid):
        """Sets the original limit for a process that was just started."""
        if hasattr(resource, "prlimit"):
            try:
                resource.prlimit(pid, resource.RLIMIT_NOFILE, self._before)
            except (OSError, ValueError):
                pass  # it ended

    @contextlib.contextmanager
    def for_kernel(self, env):
        """Refuses starts for which the system lacks resources, before and during the attempt."""
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
        """Tells whether enough descriptors are free for so many kernels."""
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if limit == resource.RLIM_INFINITY:
            return True
        try:
            used = len(os.listdir("/proc/self/fd" if sys.platform == "linux" else "/dev/fd"))
        except OSError as error:
            return error.errno != errno.EMFILE
        return used + count * OF_KERNEL + RESERVE <= limit


def too_long(env):
    """Returns the reason for which no program can be started with this environment; None if one can."""
    for name, value in env.items():
        size = len(f"{name}={value}".encode(errors="surrogateescape")) + 1
        if size > MAX_VARIABLE:
            return (
                f'The variable "{name}" has {size} bytes, and the system starts no program with more than '
                f"{MAX_VARIABLE}; shorten it, or write it to a file"
            )
    return None


def refusal(error):
    """Returns the HTTP status and the text for an error of the system during a start; None for other errors."""
    if error.errno == errno.E2BIG:
        return 400, "The environment of the kernel is longer than the system allows; give fewer variables, or files"
    if error.errno in WHAT:
        what = WHAT[error.errno]
        return 429, f"The gateway has no {what} left for another kernel: {os.strerror(error.errno)}; {advice(what)}"
    return None


def advice(what):
    limits = {"descriptors": ', raise its limit ("ulimit -n")', "processes": ', raise the limit ("ulimit -u")'}
    return f"end kernels{limits.get(what, '')}, or use another gateway as well"
