"""The pipes that file descriptors 1 and 2 of a kernel lead to, and what writes to them."""

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
# Buffering by lines, as `setvbuf` of every C library has it.
IOLBF = 1


class Pipe:
    """What file descriptor 1 or 2 leads to."""

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
        """What has been written by now and no more: a process may write for ever. None if nobody will again."""
        try:
            data = os.read(self.reader, CAPACITY)
            if not data:
                return None
            # A process can make a pipe larger.
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
    """Lines that forked processes write whole, however long they are: one waits for the other."""

    def __init__(self):
        try:
            # Processes that are forked have it, and no others.
            self._file = open(os.memfd_create("lines"), "w") if sys.platform == "linux" else tempfile.TemporaryFile("w")
        except OSError:
            self._file = None  # short ones are whole without

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
    """Text as UTF-8, in which the halves of surrogate pairs that stand alone are replaced."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()


def prepare_c_streams():
    """Buffers C's standard output by lines, as a terminal would; gives what flushes it, if that can be had."""
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
    """What is written to standard error goes to the gateway as well: it may be the last words of the kernel."""
    try:
        if select.select([], [descriptor], [], 0)[1]:
            os.write(descriptor, data[-4096:])
    except (OSError, ValueError):
        pass  # nobody is there


def count_waits():
    """How many times this thread has waited, where that can be known; to be interrupted by others is no waiting."""
    which = getattr(resource, "RUSAGE_THREAD", None)
    return 0 if which is None else resource.getrusage(which).ru_nvcsw


def awaited_children():
    """What the children used that this process has waited for: it changes with each of them."""
    return resource.getrusage(resource.RUSAGE_CHILDREN)


def has_children():
    try:
        return os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
    except (AttributeError, ChildProcessError):
        return False  # macOS has it since Python 3.13
