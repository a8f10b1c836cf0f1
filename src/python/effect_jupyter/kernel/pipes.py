"""The pipes behind file descriptors 1 and 2 of a kernel, and the writers to them."""

import codecs
import contextlib
import ctypes
import fcntl
import functools
import os
import resource
import select
import sys
import tempfile

# The capacity of a pipe.
CAPACITY = 65536
# The constant for line buffering of `setvbuf`, which is the same in all C libraries.
IOLBF = 1


class Pipe:
    """The pipe behind file descriptor 1 or 2."""

    def __init__(self, stream, descriptor):
        self.stream = stream
        self.original = os.dup(descriptor)
        self.reader, writer = os.pipe()
        os.set_blocking(self.reader, False)
        os.dup2(writer, descriptor)
        os.close(writer)
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self.is_within_line = False
        self.lines = b""

    def read(self):
        """Returns the bytes written so far, and not those written meanwhile; None if the pipe has no writers."""
        try:
            data = os.read(self.reader, CAPACITY)
            if not data:
                return None
            # A process can enlarge a pipe.
            if len(data) == CAPACITY and hasattr(fcntl, "F_GETPIPE_SZ"):
                rest = fcntl.fcntl(self.reader, fcntl.F_GETPIPE_SZ) - CAPACITY
                if rest > 0:
                    with contextlib.suppress(BlockingIOError):
                        data += os.read(self.reader, rest)
            return data
        except BlockingIOError:
            return b""

    def is_within_character(self):
        return bool(self.decoder.getstate()[0])


class Lines:
    """Writes lines of forked processes as a whole, of any length: processes wait for one another."""

    def __init__(self):
        try:
            # Only forked processes inherit it.
            self._file = open(os.memfd_create("lines"), "w") if sys.platform == "linux" else tempfile.TemporaryFile("w")
        except OSError:
            self._file = None  # short writes are atomic

    def write(self, descriptor, text):
        rest = memoryview(encoded(text))
        if self._file is not None:
            fcntl.lockf(self._file, fcntl.LOCK_EX)
        try:
            while rest:
                rest = rest[os.write(descriptor, rest) :]
        finally:
            if self._file is not None:
                fcntl.lockf(self._file, fcntl.LOCK_UN)

    def are_being_written(self):
        if self._file is None:
            return False
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
        fcntl.lockf(self._file, fcntl.LOCK_UN)
        return False


def encoded(text):
    """Encodes text as UTF-8, with lone surrogates replaced."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()


def prepare_c_streams():
    """Sets line buffering for C's standard output, as for a terminal. Returns the function that flushes it, or None."""
    try:
        library = ctypes.CDLL(None)
        name = "__stdoutp" if sys.platform == "darwin" else "stdout"
        stdout = ctypes.c_void_p.in_dll(library, name)
        library.setvbuf(stdout, None, IOLBF, ctypes.c_size_t(CAPACITY))
        flush = library.fflush
    except (AttributeError, OSError, ValueError):
        return None
    try:
        sys.__stdout__.reconfigure(line_buffering=True)  # pyright: ignore[reportOptionalMemberAccess]
    except (AttributeError, ValueError):
        pass
    return functools.partial(flush, stdout)


def echo(data, descriptor):
    """Writes standard error to the gateway as well, which reports it if the kernel dies."""
    try:
        if select.select([], [descriptor], [], 0)[1]:
            os.write(descriptor, data[-4096:])
    except (OSError, ValueError):
        pass  # the gateway has ended


def count_waits():
    """Returns how often this thread has waited, if that is known. Preemption by other threads does not count."""
    which = getattr(resource, "RUSAGE_THREAD", None)
    return 0 if which is None else resource.getrusage(which).ru_nvcsw


def awaited_children():
    """Returns the resource usage of collected children, which changes with each of them."""
    return resource.getrusage(resource.RUSAGE_CHILDREN)


def has_children():
    try:
        return os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
    except (AttributeError, ChildProcessError):
        return False  # macOS has it since Python 3.13
