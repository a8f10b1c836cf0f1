"""The WebSocket of a kernel: what a handler of a signal does amid a write, and a client that reads slowly."""

import itertools
import os
import random
import signal
import socket
import struct
import sys
import threading
import time
import unittest

sys.path.append(os.path.join(os.path.dirname(__file__), "..", "..", "src", "python"))

from effect_jupyter.kernel import websocket


class Interrupted(Exception):
    pass


def frames(data):
    """The payloads of the frames in what a server has sent."""
    start = 0
    while start < len(data):
        assert data[start] == 0x82, data[start : start + 20]
        size, start = data[start + 1], start + 2
        if size == 126:
            (size,), start = struct.unpack_from("!H", data, start), start + 2
        elif size == 127:
            (size,), start = struct.unpack_from("!Q", data, start), start + 8
        yield data[start : start + size]
        start += size


def masked(payload, mask=b"\0\0\0\0"):
    """A message of a client."""
    size = len(payload)
    if size < 126:
        length = struct.pack("!B", 0x80 | size)
    else:
        length = struct.pack("!BH", 0xFE, size) if size < 65536 else struct.pack("!BQ", 0xFF, size)
    whole = bytes(byte ^ mask[place % 4] for place, byte in enumerate(payload))
    return b"\x82" + length + mask + whole


class Reader(threading.Thread):
    """Reads all that comes, now and then with a pause."""

    def __init__(self, connected):
        super().__init__()
        self.connected = connected
        self.data = bytearray()
        self.start()

    def run(self):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
        while data := self.connected.recv(random.choice((1000, 100_000))):
            self.data += data
            if random.random() < 0.05:
                time.sleep(0.001)


class WebSocketTest(unittest.TestCase):
    def setUp(self):
        server, self.client = socket.socketpair()
        self.addCleanup(self.client.close)
        self.addCleanup(server.close)
        self.websocket = websocket.WebSocket(server)
        self.numbers = itertools.count(1)
        self.is_armed = False

    def payload(self):
        """A number, and a text by which it is known to be whole."""
        number = next(self.numbers)
        return struct.pack("!I", number) + bytes([number % 251]) * random.choice((0, 10, 1000, 70_000))

    def write(self, is_alone=True):
        payload = self.payload()
        frame = [websocket.head(len(payload)), payload]
        (self.websocket.write if is_alone else self.websocket.put)(frame)

    def receive(self, reader):
        self.websocket.flush()
        self.websocket.close()
        reader.join()
        payloads = list(frames(bytes(reader.data)))
        for payload in payloads:
            (number,) = struct.unpack_from("!I", payload)
            self.assertEqual(payload[4:], bytes([number % 251]) * (len(payload) - 4))
        return [struct.unpack_from("!I", payload)[0] for payload in payloads]

    def interrupt(self, handler, seconds=3):
        """Writes while a signal comes ever again."""
        previous = signal.signal(signal.SIGALRM, handler)
        until = time.monotonic() + seconds
        try:
            while time.monotonic() < until:
                signal.setitimer(signal.ITIMER_REAL, random.choice((0.00002, 0.0002, 0.002)))
                try:
                    self.is_armed = True
                    for _ in range(20):
                        self.write(random.random() < 0.8)
                    self.is_armed = False
                except Interrupted:
                    pass
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, previous)

    def test_write_tears_repeats_and_reorders_no_frame_when_handlers_of_signals_raise(self):
        reader = Reader(self.client)

        interrupts = 0

        def handle(*_):
            nonlocal interrupts
            if self.is_armed:
                self.is_armed = False
                interrupts += 1
                raise Interrupted

        self.interrupt(handle)
        numbers = self.receive(reader)
        self.assertEqual(numbers, sorted(set(numbers)))
        # An interrupt takes at most the frame that was not yet one.
        self.assertGreater(interrupts, 100)
        self.assertGreaterEqual(len(numbers), next(self.numbers) - 1 - interrupts)

    def test_write_within_a_write_comes_behind_it_or_before(self):
        reader = Reader(self.client)
        self.interrupt(lambda *_: self.write())
        numbers = self.receive(reader)
        self.assertEqual(sorted(numbers), list(range(1, next(self.numbers))))

    def test_write_takes_any_number_of_parts(self):
        reader = Reader(self.client)
        payload = struct.pack("!I", 1) + b"\1" * 10_000
        parts = [payload[:4], *(payload[start : start + 1] for start in range(4, len(payload)))]
        for part in (b"", b""):
            parts.insert(2000, part)
        self.websocket.write([websocket.head(len(payload)), *parts])
        self.assertEqual(self.receive(reader), [1])

    def test_write_of_two_threads_keeps_frames_whole(self):
        reader = Reader(self.client)
        sent = []

        def flood():
            for number in range(2000):
                payload = struct.pack("!I", number) + bytes([number % 251]) * (number % 5000)
                self.websocket.write([websocket.head(len(payload)), payload])
                sent.append(number)

        threads = [threading.Thread(target=flood) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(sorted(self.receive(reader)), sorted(sent))

    def test_write_waits_for_the_client_and_ends_when_it_is_gone(self):
        ended = threading.Event()

        count = 0

        def flood():
            nonlocal count
            while not self.websocket.is_closed:
                self.write()
                count += 1
            ended.set()

        threading.Thread(target=flood, daemon=True).start()
        self.assertFalse(ended.wait(0.3))
        before = count
        time.sleep(0.2)
        self.assertEqual(count, before)
        self.client.close()
        self.assertTrue(ended.wait(5))

    def test_messages_of_one_read_are_those_of_many(self):
        sent = [bytes([size % 251]) * size for size in (0, 1, 125, 126, 0, 4095, 4096, 4097, 70_000, 3)]
        data = b"".join(masked(message, random.randbytes(4)) for message in sent)
        sizes = (len(data), 1000, 7)

        def send():
            for size in sizes:
                for start in range(0, len(data), size):
                    self.client.sendall(data[start : start + size])
            self.client.shutdown(socket.SHUT_WR)

        sending = threading.Thread(target=send)
        sending.start()
        self.addCleanup(sending.join)
        self.assertEqual(list(self.websocket.messages()), sent * len(sizes))

    def test_accept_reads_a_request_in_pieces_of_any_size(self):
        request = (
            b"GET /shell HTTP/1.1\r\nHost: localhost\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            b"Sec-WebSocket-Protocol: a, v1\r\nAuthorization: token secret\r\n\r\n"
        )
        for end in range(len(request)):
            self.assertIsNone(websocket.accept(request[:end], b"secret", "v1", ("/shell",)))
        accepted = websocket.accept(request, b"secret", "v1", ("/shell",))
        assert accepted is not None
        self.assertEqual(accepted[0], "/shell")
        # The example of RFC 6455.
        self.assertIn(b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n", accepted[2])


if __name__ == "__main__":
    unittest.main()
