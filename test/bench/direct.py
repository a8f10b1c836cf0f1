"""Jupyter's own client on a kernel of its own, over ZeroMQ without a gateway.

Runs each line of standard input as code and prints how many milliseconds that took.
"""

import sys
import time

from jupyter_client.manager import start_new_kernel

manager, client = start_new_kernel()
try:
    for line in sys.stdin:
        before = time.perf_counter()
        request = client.execute(line)
        client.get_shell_msg()
        while True:
            message = client.get_iopub_msg()
            idle = message["content"].get("execution_state") == "idle"
            if idle and message["parent_header"].get("msg_id") == request:
                break
        print((time.perf_counter() - before) * 1000, flush=True)
finally:
    client.stop_channels()
    manager.shutdown_kernel(now=True)
