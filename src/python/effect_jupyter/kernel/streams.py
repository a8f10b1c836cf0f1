"""The streams of Python code, which write to the one sequence of a kernel's output."""

import io
import os
import sys

from ipykernel.iostream import OutStream

from effect_jupyter.kernel.output import output


class Stream(OutStream):
    """Writes to the one sequence of a kernel, and in forked processes to the pipe, line by line."""

    # Past ten seconds, which hundreds of megabytes can take, ipykernel complains within the output of the code.
    flush_timeout = 600
    _unfinished = None
    _original_stdstream_fd = None

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        output.add(self)

    def _setup_stream_redirects(self, name):
        self._original_stdstream_fd = getattr(sys, name).fileno()
        self._original_stdstream_copy = output.redirect(self, self._original_stdstream_fd)

    def fileno(self):
        """Returns the descriptor of the pipe: what programs write there is output of the code."""
        if self._original_stdstream_fd is None:
            raise io.UnsupportedOperation("fileno")
        return self._original_stdstream_fd

    def close(self):
        self.flush()
        self.pub_thread = None

    def write(self, string):
        if not isinstance(string, str):
            raise TypeError(f"write() argument must be str, not {type(string)}")
        if self.pub_thread is None:
            raise ValueError("I/O operation on closed file")
        if self._unfinished is None:
            output.write(self, self.parent_header, string, sys._getframe(1))
        else:
            self._write_as_child(string)
        return len(string)

    def flush(self):
        if self._unfinished is None:
            output.flush()
        else:
            self._write_as_child("", is_whole=True)

    def _flush(self):
        output.send()

    def send_text(self, parent, text):
        """Sends a message, as ipykernel does."""
        if self.pub_thread is None:
            return
        self.session.pid = os.getpid()
        message = self.session.msg("stream", {"name": self.name, "text": text}, parent=parent)
        for hook in self._hooks:
            message = hook(message)
            if message is None:
                return
        self.session.send(self.pub_thread, message, ident=self.topic)

    def become_child(self):
        if self._original_stdstream_fd is not None:
            self._unfinished = ""

    def _write_as_child(self, string, is_whole=False):
        with output.lock:
            text = self._unfinished + string
            end = len(text) if is_whole else text.rfind("\n") + 1
            self._unfinished = text[end:]
            if end > 0:
                output.forked_lines.write(self._original_stdstream_fd, text[:end])
