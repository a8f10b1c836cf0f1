"""All that is written to the standard output and error of a kernel, in the order in which it was written.

Python writes text to two streams; programs that it starts, C code and forked processes write bytes to the file
descriptors 1 and 2, which are pipes. All of it becomes one sequence, which each message of the kernel follows.
"""

import functools
import io
import os
import select
import sys
import threading
import time
import warnings
from typing import Any

from ipykernel.iostream import OutStream

from effect_jupyter.kernel.pipes import (
    CAPACITY,
    Lines,
    Pipe,
    awaited_children,
    count_waits,
    echo,
    has_children,
    prepare_c_streams,
)


class Piece:
    """Text of one stream and one request, until something else is written."""

    __slots__ = ("stream", "parent", "text", "last")

    def __init__(self, stream, parent):
        self.stream = stream
        self.parent = parent
        self.text = io.StringIO()
        self.last = ""


class Output:
    """The sequence of all that is written, and the pipes that lead to it."""

    flush_interval = 0.01
    # The same in seconds for output after a pause of that length.
    first_interval = 0.001
    # Seconds after which an unfinished line is sent; prompts and dots of progress are such lines.
    line_timeout = 0.2
    # Seconds in which nothing comes between the parts of a line that Python writes.
    line_interval = 0.25
    # Seconds that Python waits for the rest of a line that a forked process writes.
    rest_timeout = 5
    # Nanoseconds that `print` itself takes between two parts; the start of a program takes longer.
    print_interval = 200_000
    # Maximum frames above a `print` in the stack of a thread that is amid its line.
    max_frames = 10
    # Maximum characters that wait to be sent; a thread that writes more waits too.
    max_unsent = 1024 * 1024
    # The characters that a message counts for besides its text.
    message_size = 256

    def __init__(self):
        self._streams = []
        self._pipes = {}
        self._epoll = None
        self._flush_c = None
        self.forked_lines: Any = None
        self.is_child = False
        self._clear()

    def _clear(self):
        self.lock = threading.Condition()
        self._pieces = []
        # The last piece of each request; order counts among what belongs to the same.
        self._last = {}
        # The time since which text waits for the thread that sends.
        self._since = None
        self._is_sending = False
        self._sent_at = -self.flush_interval
        # The number of characters that wait to be sent, and more for each message.
        self._unsent = 0
        # The place that wrote last, until when it may be the same `print`, and since when the line is unfinished.
        self._writer = (None, None, 0)
        self._until = 0
        self._waits = 0
        self._children: Any = None
        self._line_since = None
        # True if lines of processes wait for the end of that line.
        self._has_lines = False

    def add(self, stream):
        if not self._streams:
            os.register_at_fork(after_in_child=self._become_child)
        self._streams.append(stream)

    def redirect(self, stream, descriptor):
        if not self._pipes:
            self._flush_c = prepare_c_streams()
            self.forked_lines = Lines()
            self._epoll = select.epoll() if hasattr(select, "epoll") else None
        pipe = Pipe(stream, descriptor)
        if self._epoll is not None:
            self._epoll.register(pipe.reader, select.EPOLLIN)
        self._pipes = {**self._pipes, pipe.reader: pipe}
        threading.Thread(target=self._watch, args=(pipe,), name=f"Pipe of {stream.name}", daemon=True).start()
        return pipe.original

    def _watch(self, pipe):
        """Reads what is written while the code is running or waiting, and when there is none."""
        while pipe.reader in self._pipes:
            select.select([pipe.reader], [], [])
            with self.lock:
                while self._is_amid_line() or not self._has_room():
                    self.lock.wait(self.line_interval / 100)
                self._take()
            self._schedule()

    def _has_room(self):
        """Tells whether more may be written: what is not sent yet is kept here."""
        return self._unsent < self.max_unsent

    def _wait_for_room(self):
        thread = self._streams[0].pub_thread.thread
        while not self._has_room() and thread.is_alive() and threading.current_thread() is not thread:
            self._streams[0].pub_thread.schedule(self.send)
            with self.lock:
                self.lock.wait_for(self._has_room, self.rest_timeout)

    def _is_amid_line(self):
        since = self._line_since
        return since is not None and time.monotonic() < since + self.line_interval

    def drain(self, keeps_lines=False):
        """Takes over what is in the pipes now; on demand not yet what are whole lines."""
        if self._pipes:
            # Neither is harmed by several threads that ask at once; one gives first what was written to first.
            epoll, pipes = self._epoll, self._pipes
            ready = (
                [reader for reader, _ in epoll.poll(0)] if epoll is not None else select.select([*pipes], [], [], 0)[0]
            )
            if ready or self._has_lines:
                with self.lock:
                    self._take(ready, keeps_lines)
                self._schedule()

    def _take(self, ready=(), keeps_lines=False):
        self._has_lines = False
        for pipe in sorted(self._pipes.values(), key=lambda pipe: pipe.reader not in ready[:1]):
            if keeps_lines and len(pipe.lines) >= CAPACITY:
                self._has_lines = True
                continue  # what else there is waits in the pipe
            part = pipe.read()
            if part is None:
                self._forget(pipe)
            data, pipe.lines = pipe.lines + (part or b""), b""
            if not data:
                continue
            # A process that has just ended its line has written all of it; others may write without end.
            is_being_written = False
            while keeps_lines and len(data) < self.max_unsent and not data.endswith(b"\n"):
                # Asked once before each look: it may end in between.
                is_being_written = self.forked_lines.are_being_written()
                rest = b"" if is_being_written else pipe.read()
                if not rest:
                    break
                data += rest
            if keeps_lines and (data.endswith(b"\n") or is_being_written):
                pipe.lines, self._has_lines = data, True
                continue
            pipe.is_within_line = not data.endswith(b"\n")
            self._append(pipe.stream, pipe.stream._parent_header_global, pipe.decoder.decode(data))
            if pipe.stream.name == "stderr":
                echo(data, pipe.original)
        self.lock.notify_all()

    def _forget(self, pipe):
        """Every end that could write was closed."""
        self._pipes = {reader: other for reader, other in self._pipes.items() if other is not pipe}
        if self._epoll is not None:
            self._epoll.unregister(pipe.reader)

    def write(self, stream, parent, text, frame):
        """Writes text of Python's, behind what is in the pipes."""
        writer = (threading.get_ident(), frame.f_code, frame.f_lasti)
        is_amid_line = self._is_amid_line()
        # One `print` writes its parts from one place and at once: lines of processes do not come between them.
        is_same = is_amid_line and self._writer == writer and self._is_at_once()
        # Not amid a line, which is no longer than what is printed.
        if not (is_same or self._has_room()):
            self._wait_for_room()
        if is_same or not is_amid_line or self._writer[0] == writer[0]:
            self.drain(keeps_lines=is_same)
        with self.lock:
            while self._is_amid_line() and self._is_printed_by_other(writer):
                self.lock.wait(self.flush_interval / 10)
            if not (is_same or is_amid_line) and self._is_being_written():
                # As forked processes wait for one another.
                self.lock.wait_for(lambda: not self._is_being_written(), self.rest_timeout)
            self._append(stream, parent, text)
            self._writer = writer
            if text[-1:] == "\n":
                self._line_since = None
            elif self._line_since is None:
                self._line_since = time.monotonic()
        self._schedule()
        if self._line_since is not None:
            # Last, as none of this is between two parts.
            self._until = time.thread_time_ns() + self.print_interval
            self._waits, self._children = count_waits(), awaited_children()

    def _is_printed_by_other(self, writer):
        """Tells whether another thread is amid a `print` that has written a part of its line."""
        thread, code, instruction = self._writer
        if thread == writer[0]:
            return False
        frame = None if thread is None else sys._current_frames().get(thread)
        # It may be in here with its next part, or in what makes a text of that.
        for _ in range(self.max_frames):
            if frame is None or frame.f_code is code:
                break
            frame = frame.f_back
        return frame is not None and frame.f_code is code and frame.f_lasti == instruction

    def _is_at_once(self):
        """Tells whether the thread has done next to nothing since it wrote, and has waited for no program.

        It may have waited for other threads of Python, as within any `print`, and those for programs.
        """
        has_waited = count_waits() != self._waits and awaited_children() != self._children
        return time.thread_time_ns() < self._until and not has_waited

    def _is_being_written(self):
        """Tells whether a forked process has written half of a line."""
        unsent = None
        while any(pipe.is_within_line for pipe in self._pipes.values()):
            if self.forked_lines.are_being_written():
                return True
            if unsent == self._unsent or not self._has_room():
                break  # another process, whose line may have no end
            # It may have ended its line since that was read.
            unsent = self._unsent
            self._take()
        return False

    def _append(self, stream, parent, text):
        if not text:
            return
        request = parent.get("msg_id")
        piece = self._last.get(request)
        if piece is None or piece.stream is not stream:
            piece = self._last[request] = Piece(stream, parent)
            self._pieces.append(piece)
            self._unsent += self.message_size
        piece.text.write(text)
        self._unsent += len(text)
        piece.last = text[-1]

    def _schedule(self):
        # Not while the lock is held: waking a thread that waits for it may have to wait for that thread.
        if self._since is None and (self._pieces or self._has_lines):
            since = self._since = time.monotonic()
            self._streams[0].pub_thread.schedule(functools.partial(self._flush_later, since))

    def _flush_later(self, since):
        # Output after a pause is sent early, and what follows it together.
        is_first = time.monotonic() > self._sent_at + self.flush_interval
        self._call_later(self.first_interval if is_first else self.flush_interval, since)

    def _call_later(self, delay, since):
        self._streams[0]._io_loop.call_later(delay, self._flush_in_time, since)

    def _flush_in_time(self, since):
        if since != self._since:
            return  # another thread has flushed
        if time.monotonic() < since + self.line_timeout and self._has_room() and self._ends_within_line():
            self._call_later(self.flush_interval, since)
        else:
            self.send()

    def _ends_within_line(self):
        with self.lock:
            return any(piece.last not in "\n\r" for piece in self._last.values())

    def send(self):
        """Sends all text. For the thread that sends, or when there is none any more."""
        with self.lock:
            if self._has_lines and not self._is_amid_line():
                self._take()
            # Before the pieces are taken: without pieces and a thread that sends, everything was sent.
            self._is_sending = True
            pieces, self._pieces, self._last, self._since = self._pieces, [], {}, None
            self._unsent = 0
        try:
            for piece in pieces:
                text = piece.text.getvalue()
                for start in range(0, len(text), self.max_unsent):
                    piece.stream.send_text(piece.parent, text[start : start + self.max_unsent])
        finally:
            self._is_sending = False
        if pieces:
            self._sent_at = time.monotonic()
        with self.lock:
            self.lock.notify_all()
        self._schedule()

    def flush(self):
        """Sends what was written before, also by C code and by the processes that wrote to the pipes."""
        if self.is_child or not self._streams:
            return
        if self._flush_c is not None:
            self._flush_c()
        if self._writer[0] == threading.get_ident():
            # It has its line sent, and has said all of it.
            self._line_since = None
        self.drain()
        # Waking the other thread and waiting for it costs more than many a cell.
        if self._pieces or self._is_sending:
            OutStream.flush(self._streams[0])

    def finish(self):
        """The same at the end of a cell, where half a character is all that there will be of it."""
        for stream in self._streams:
            # Without a stream neither values nor exceptions would be shown.
            if getattr(sys, stream.name, None) is None:
                setattr(sys, stream.name, stream)
        streams: list[Any] = [sys.__stdout__, sys.__stderr__]
        for stream in streams:
            try:
                stream.flush()
            except (AttributeError, OSError, ValueError):
                pass  # there is none, or it was closed
        self.flush()
        unfinished = [pipe for pipe in self._pipes.values() if pipe.is_within_character()]
        if unfinished and not has_children():
            with self.lock:
                for pipe in unfinished:
                    rest = pipe.decoder.decode(b"", True)
                    pipe.decoder.reset()
                    self._append(pipe.stream, pipe.stream._parent_header_global, rest)
            self.flush()

    def set_parent(self, parent):
        """Attributes what is written from now on to another request."""
        self.drain()
        for stream in self._streams:
            stream.set_parent(parent)

    def _become_child(self):
        """This is a process that the code forked, which writes to the pipes as others do."""
        self._clear()
        self.is_child = True
        # Here it ends the process.
        warnings.filterwarnings("ignore", message="To exit: use")
        for reader in self._pipes:
            os.close(reader)
        self._pipes = {}
        for stream in self._streams:
            stream.become_child()


output = Output()
