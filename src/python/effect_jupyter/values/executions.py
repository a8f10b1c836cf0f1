"""Requests that travel as executions: of a kernel whose client is served by Jupyter.

A request is an execution of `await run()`, whose arguments and binary parts are the buffers of its message; the answer
is a message with buffers as well. Runs in the kernel, as a module that no variable of the user refers to.
"""

import os

from IPython import get_ipython

from effect_jupyter.values.requests import Exchange
from effect_jupyter.values.requests import run as run_request

MIME = "application/vnd.effect-jupyter.value+json"

shell = get_ipython()
if not all(hasattr(getattr(shell, "kernel", None), name) for name in ("get_parent", "session", "iopub_socket")):
    raise ImportError("Values travel through ipykernel, which this kernel is not made of")
# The parts of a request that arrived in earlier messages.
kept = []


def keep(first):
    """Stores a part of the next request, which is too large for one message."""
    if first:
        kept.clear()
    kept.extend(bytes(part) for part in shell.kernel.get_parent("shell")["buffers"])


def take_parts():
    """Returns the parts of the current request."""
    parent = shell.kernel.get_parent("shell")
    parts, sizes = parent["buffers"], parent["metadata"].get("sizes")
    if sizes is None:
        kept.clear()
        return parts
    joined = []
    for size in sizes:
        taken, length = [], 0
        while length < size:
            taken.append(kept.pop(0))
            length += len(taken[-1])
        joined.append(b"".join(taken))
    return joined


def send(content, buffers):
    kernel = shell.kernel
    kernel.session.send(
        kernel.iopub_socket,
        "display_data",
        {"data": {MIME: content}, "metadata": {}, "transient": {}},
        parent=kernel.get_parent("shell"),
        ident=b"display_data",
        buffers=buffers,
    )


async def run():
    process = os.getpid()
    failure = await run_request(Exchange(shell, send, is_in_task=True), take_parts)
    if failure is not None:
        # A process that the code forked ends by the exception itself, which may be SystemExit.
        raise failure if os.getpid() == process else failure.error
