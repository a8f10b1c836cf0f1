"""ipybox's kernel client, on gateways of its own and with all of its waits.

Does what each line of standard input says, `nothing`, `execute`, `reset` or `timeout`, and prints how many milliseconds
that took.
"""

import asyncio
import socket
import sys
import time

from ipybox.kernel_mgr.client import KernelClient
from ipybox.kernel_mgr.server import KernelGateway

DEADLINE = 0.3


def free_port():
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


async def nothing():
    port = free_port()
    before = time.perf_counter()
    async with KernelGateway(port=port), KernelClient(port=port) as client:
        await client.execute("1+1")
        return time.perf_counter() - before


async def execute(client):
    before = time.perf_counter()
    await client.execute("1+1")
    return time.perf_counter() - before


async def reset(client):
    before = time.perf_counter()
    await client.reset()
    await client.execute("1+1")
    return time.perf_counter() - before


async def time_out(client):
    before = time.perf_counter()
    try:
        await client.execute("import time\ntime.sleep(60)", timeout=DEADLINE)
    except asyncio.TimeoutError:
        return time.perf_counter() - before - DEADLINE
    raise RuntimeError("It did not time out")


async def main():
    port = free_port()
    async with KernelGateway(port=port), KernelClient(port=port) as client:
        tasks = {
            "nothing": nothing,
            "execute": lambda: execute(client),
            "reset": lambda: reset(client),
            "timeout": lambda: time_out(client),
        }
        while line := await asyncio.to_thread(sys.stdin.readline):
            print(await tasks[line.strip()]() * 1000, flush=True)


asyncio.run(main())
