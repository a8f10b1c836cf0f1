"""The log of a kernel's frames, and what programs that attach read of it."""

import asyncio
import json
import sys
import tempfile
import unittest
import weakref
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "src" / "python"))

from effect_jupyter.gateway.retention import OVERHEAD, TAKEN, WINDOW, Ended, Log, Reader, Retention, connect, frames
from effect_jupyter.kernel.websocket import head
from tornado.web import HTTPError


class Socket:
    """A WebSocket of a program, which takes frames while it is open."""

    def __init__(self, holder):
        self.holder = holder
        self.opening: Any = None
        self.frames = []
        self.code = None
        self.room = asyncio.Event()
        self.room.set()

    def write_message(self, message, binary=False):
        if binary:
            self.frames.append(message)
        else:
            self.opening = json.loads(message)
        return asyncio.ensure_future(self.room.wait())

    def close(self, code=1000, reason=None):
        self.code = code


class LogTest(unittest.TestCase):
    def test_drops_the_oldest_beyond_the_bound(self):
        log = Log(3 * (10 + OVERHEAD))
        for number in range(1, 6):
            log.append(b"%10d" % number, number + 1)
        self.assertEqual((log.first, log.next), (3, 6))
        self.assertEqual([log[number] for number in range(3, 6)], [b"%10d" % number for number in range(3, 6)])

    def test_keeps_what_is_needed(self):
        log = Log(0)
        for number in range(1, 6):
            log.append(b"frame", min(number + 1, 3))
        self.assertEqual((log.first, log.next), (3, 6))
        log.append(b"frame", 7)
        self.assertEqual((log.first, log.next), (7, 7))


class RetentionTest(unittest.IsolatedAsyncioTestCase):
    def setUp(self):
        self.states = []
        self.kernel = asyncio.StreamReader()
        self.retention = Retention(10_000, self.states.append)

    async def asyncSetUp(self):
        self.reading = asyncio.ensure_future(self.retention._read_shell(self.kernel))

    async def asyncTearDown(self):
        self.reading.cancel()

    def put(self, *frames):
        for frame in frames:
            self.kernel.feed_data(head(len(frame)) + frame)

    async def attach(self, holder):
        socket = Socket(holder)
        self.retention.take(holder)
        self.assertTrue(self.retention.join("shell", socket))
        return socket, asyncio.ensure_future(self.retention.follow(socket))

    async def settle(self):
        for _ in range(50):
            await asyncio.sleep(0)

    async def test_a_program_gets_what_comes_and_repeats_what_came(self):
        self.put(b"one", b"two")
        await self.settle()
        socket, _ = await self.attach("a")
        self.put(b"three")
        await self.settle()
        self.assertEqual((socket.opening, socket.frames), ({"position": 2}, [b"three"]))
        again = Socket("a")
        await self.retention.replay(again, 1, 3)
        self.assertEqual((again.opening, again.frames, again.code), ({"first": 2}, [b"two", b"three"], 1000))

    async def test_what_is_gone_is_said(self):
        self.put(*(b"x" * 1000 for _ in range(20)))
        await self.settle()
        await self.attach("a")
        again = Socket("a")
        await self.retention.replay(again, 3, 20)
        self.assertEqual(again.opening, {"first": self.retention.log.first})
        self.assertEqual(len(again.frames), 21 - self.retention.log.first)
        gone = Socket("a")
        await self.retention.replay(gone, 3, 5)
        self.assertEqual((gone.opening, gone.frames), ({"first": 6}, []))

    async def test_the_kernel_is_not_read_while_its_program_does_not(self):
        socket, _ = await self.attach("a")
        socket.room.clear()
        self.put(*(b"x" * (WINDOW // 4) for _ in range(20)))
        await self.settle()
        read = self.retention.log.next
        self.assertLess(read, 10)
        socket.room.set()
        await self.settle()
        self.assertEqual(len(socket.frames), 20)

    async def test_the_program_that_attaches_last_has_the_kernel(self):
        first, _ = await self.attach("a")
        first.room.clear()
        self.put(*(b"x" * (WINDOW // 4) for _ in range(20)))
        await self.settle()
        second, _ = await self.attach("b")
        await self.settle()
        self.assertEqual(first.code, TAKEN)
        self.assertFalse(self.retention.join("shell", first))
        self.assertEqual(second.opening["position"] + len(second.frames), 20)
        for refused in (self.retention.take, self.retention.check):
            with self.assertRaises(HTTPError) as raised:
                refused("a")
            self.assertEqual(raised.exception.status_code, 409)

    async def test_a_range_that_never_was_has_no_frames(self):
        self.put(b"one")
        await self.settle()
        await self.attach("a")
        for start, end in ((5, 9), (1, 9), (9, 5)):
            again = Socket("a")
            await self.retention.replay(again, start, end)
            self.assertEqual((again.frames, again.code), ([], 1000))

    async def test_a_program_that_attaches_after_the_end_is_told(self):
        self.kernel.feed_eof()
        await self.reading
        self.retention._on_end(self.reading)
        socket, following = await self.attach("a")
        await following
        control = Socket("a")
        self.assertTrue(self.retention.join("control", control))
        self.assertEqual((socket.code, control.code), (1000, 1000))

    async def test_what_a_kernel_put_out_before_its_end_is_repeated_up_to_the_last_frame(self):
        socket, following = await self.attach("a")
        socket.room.clear()
        self.put(b"one", b"two")
        await self.settle()
        self.kernel.feed_eof()
        await self.reading
        self.retention._on_end(self.reading)
        again = Socket("a")
        await self.retention.replay(again, 1)
        self.assertEqual((again.opening, again.frames), ({"first": 2, "last": 2}, [b"two"]))
        none = Socket("a")
        await self.retention.replay(none, 2)
        self.assertEqual((none.opening, none.frames, none.code), ({"first": 3, "last": 2}, [], 1000))
        with self.assertRaises(HTTPError) as raised:
            await self.retention.start(b"code")
        self.assertEqual(raised.exception.status_code, 404)
        following.cancel()

    async def test_everything_is_read_that_a_kernel_sent_before_it_died_with_requests_unread(self):
        ended = asyncio.Event()

        async def serve(reader, writer):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
            for _ in range(3):
                writer.write(bytes(head(50_000)) + b"x" * 50_000)
            await writer.drain()
            # Requests come that are never read.
            writer.transport.pause_reading()
            await started.wait()
            writer.transport.abort()
            ended.set()

        started = asyncio.Event()
        with tempfile.TemporaryDirectory() as folder:
            server = await asyncio.start_unix_server(serve, f"{folder}/socket")
            connection = await connect(f"{folder}/socket", "shell", "secret", 1000)
            connection.writer.write(b"request")
            started.set()
            await ended.wait()
            connection.writer.write(b"request")
            await self.settle()
            sizes = [len(frame) async for frame in frames(connection.reader)]
            connection.close()
            server.close()
        self.assertEqual(sizes, [50_000] * 3)

    async def test_the_manager_of_a_kernel_does_not_stay_with_its_output(self):
        class Manager:
            def on_status(self, state):
                pass

        manager = Manager()
        retention, known = Retention(10_000, manager.on_status), weakref.ref(manager)
        self.kernel.feed_eof()
        await self.reading
        retention._on_end(self.reading)
        del manager
        self.assertIsNone(known())

    async def test_the_replay_of_a_program_ends_when_another_one_attaches(self):
        await self.attach("a")
        self.put(b"one")
        await self.settle()
        slow = Socket("a")
        slow.room.clear()
        replaying = asyncio.ensure_future(self.retention.replay(slow, 0, 1))
        await self.settle()
        self.retention.take("b")
        slow.room.set()
        await replaying
        self.assertEqual(slow.code, TAKEN)

    async def test_the_output_of_all_kernels_that_ended_has_one_bound(self):
        ended = Ended(10 * (100 + OVERHEAD), 3)
        retentions = {}
        for name in "abcd":
            retentions[name] = Retention(10_000, self.states.append)
            for _ in range(4):
                retentions[name].log.append(b"x" * 100, 5)
        # A program is sent the frames from the second one on.
        retentions["a"]._readers["socket"] = Reader(2)
        for name in "abc":
            ended.add(name, retentions[name])
        self.assertEqual([retentions[name].log.first for name in "abc"], [2, 2, 1])
        retentions["a"]._readers.clear()
        ended.trim()
        self.assertEqual([retentions[name].log.first for name in "abc"], [2, 2, 1])
        ended.add("d", retentions["d"])
        self.assertIsNone(ended.get("a"))
        self.assertEqual([retentions[name].log.first for name in "bcd"], [3, 1, 1])
        self.assertEqual([ended.remove("b"), ended.remove("b"), ended.get("c")], [True, False, retentions["c"]])

    async def test_a_kernel_is_busy_as_soon_as_code_is_started(self):
        sent = []

        async def send(name, frame):
            sent.append((name, frame))

        self.retention.send = send
        self.put(b"one")
        await self.settle()
        self.assertEqual(await self.retention.start(b"code"), 1)
        self.assertEqual((sent, self.states), ([("shell", b"code")], ["busy"]))

    async def test_states_are_known_and_not_forged_by_text(self):
        self.put(b'{"execution_state": "busy"}', b'{"text": "{\\"execution_state\\": \\"idle\\"}"}')
        await self.settle()
        self.assertEqual(self.states, ["busy"])


if __name__ == "__main__":
    unittest.main()
