"""The connections of clients on other machines, byte by byte."""

import asyncio
import os
import random
import socket
import sys
import types
import unittest
from typing import Any
from unittest import mock

sys.path.append(os.path.join(os.path.dirname(__file__), "..", "..", "src", "python"))

from effect_jupyter.gateway import join
from tornado.iostream import IOStream

MEGABYTE = 1024 * 1024


class JoinTest(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self):
        listener = socket.create_server(("127.0.0.1", 0))
        self.client = socket.create_connection(listener.getsockname())
        accepted, _ = listener.accept()
        listener.close()
        self.kernel, connected = socket.socketpair()
        for end in (self.client, self.kernel, connected):
            end.setblocking(False)
            self.addCleanup(end.close)
        self.loop = asyncio.get_running_loop()
        self.ends = []
        self.join = join.Join(IOStream(accepted), connected)
        self.running = asyncio.ensure_future(self.join.run(self.ends.append))

    async def asyncTearDown(self):
        self.running.cancel()
        await asyncio.wait([self.running])

    async def read(self, end, size=None):
        """Reads this number of bytes; all until the end without one."""
        data = bytearray()
        while size is None or len(data) < size:
            piece = await asyncio.wait_for(self.loop.sock_recv(end, MEGABYTE), 10)
            if not piece:
                break
            data += piece
        return bytes(data)

    async def test_passes_all_bytes_in_both_directions(self):
        data = random.randbytes(5 * MEGABYTE)
        for source, target in ((self.client, self.kernel), (self.kernel, self.client)):
            writing = asyncio.ensure_future(self.loop.sock_sendall(source, data))
            self.assertEqual(await self.read(target, len(data)), data)
            await writing
        self.assertEqual((self.join.received, self.join.sent), (len(data), len(data)))
        self.assertEqual(self.ends, [])

    async def test_reads_a_side_no_further_than_the_other_takes(self):
        written = 0

        async def flood():
            nonlocal written
            while True:
                await self.loop.sock_sendall(self.kernel, bytes(MEGABYTE))
                written += 1

        flooding = asyncio.ensure_future(flood())
        await asyncio.sleep(0.5)
        before = written
        await asyncio.sleep(0.5)
        flooding.cancel()
        self.assertEqual(written, before)
        # The buffers of the system.
        self.assertLess(written, 30)

    async def test_ends_the_client_after_the_last_bytes_of_the_kernel(self):
        data = random.randbytes(5 * MEGABYTE)
        writing = asyncio.ensure_future(self.loop.sock_sendall(self.kernel, data))
        # The client does not know yet.
        await self.loop.sock_sendall(self.client, b"ping")
        reading = asyncio.ensure_future(self.read(self.client))
        await writing
        self.kernel.close()
        for _ in range(10):
            await self.loop.sock_sendall(self.client, b"ping")
            await asyncio.sleep(0.01)
        self.assertEqual(await reading, data)
        self.assertEqual(self.ends, [False])
        self.client.close()
        await asyncio.wait_for(self.running, 1)

    async def test_ends_the_kernel_with_the_client(self):
        await self.loop.sock_sendall(self.kernel, b"answer")
        await self.read(self.client, 6)
        self.client.close()
        self.assertEqual(await self.read(self.kernel), b"")
        self.assertEqual(self.ends, [True])

    async def test_ends_the_kernel_of_a_client_that_reads_nothing_and_closes(self):
        flooding = asyncio.ensure_future(self.loop.sock_sendall(self.kernel, bytes(50 * MEGABYTE)))
        await asyncio.sleep(0.2)
        self.client.close()
        with self.assertRaises(OSError):
            await asyncio.wait_for(flooding, 10)
        self.assertEqual(self.ends, [True])

    async def test_answers_for_a_kernel_that_does_not(self):
        self.kernel.close()
        self.assertTrue((await self.read(self.client)).startswith(b"HTTP/1.1 409 "))


class Kernels:
    """Has one kernel, whose deletion it records."""

    def __init__(self):
        self.kernel = types.SimpleNamespace(joins=join.Joins(), shutting_down=False)
        self.deleted = []

    def served(self, _):
        return self.kernel

    def keep_last_words(self, _, words):
        self.words = words

    async def shutdown_kernel(self, kernel_id):
        self.deleted.append(kernel_id)


class DeletionTest(unittest.IsolatedAsyncioTestCase):
    async def test_deletes_a_kernel_whose_client_does_not_connect(self):
        kernels = Kernels()
        with mock.patch.object(join, "FIRST", 0.0):
            join.expect(kernels, "one")
        await asyncio.sleep(0.05)
        self.assertEqual((kernels.deleted, kernels.words), (["one"], join.CUT))

    async def test_keeps_a_kernel_whose_client_has_both_connections(self):
        kernels = Kernels()
        with (
            mock.patch.object(join, "FIRST", 0.0),
            mock.patch.object(join.Joins, "is_complete", lambda _: True),
        ):
            join.expect(kernels, "one")
            await asyncio.sleep(0.05)
        self.assertEqual(kernels.deleted, [])


class HandshakeTest(unittest.TestCase):
    def request(self, bound="100", **fields: str) -> Any:
        names = {name.replace("_", "-"): value for name, value in fields.items()}
        return types.SimpleNamespace(headers=names, arguments={join.MAX_SIZE: [bound.encode()]})

    def test_has_the_token_of_the_kernel_in_place_of_the_gateways(self):
        key = "dGhlIHNhbXBsZSBub25jZQ=="
        sent = join.handshake_of(
            self.request(**{"Sec-WebSocket-Key": key, "Authorization": "token mine"}), "shell", "its"
        )
        self.assertTrue(sent.startswith(b"GET /shell HTTP/1.1\r\n"))
        self.assertIn(b"\r\nAuthorization: token its\r\n", sent)
        self.assertIn(f"\r\nSec-WebSocket-Key: {key}\r\n".encode(), sent)
        self.assertNotIn(b"mine", sent)

    def test_refuses_what_could_add_fields(self):
        for bound, key in (
            ("1", "x"),
            ("1\r\nX: y", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("\u0661", "dGhlIHNhbXBsZSBub25jZQ=="),
        ):
            with self.assertRaises(join.Told):
                join.handshake_of(self.request(bound, **{"Sec-WebSocket-Key": key}), "shell", "its")


if __name__ == "__main__":
    unittest.main()
