"""Runs the cells on standard input, a JSON list of sources, in a kernel of ours and in one of ipykernel as it is.

Usage: compare_cells.py FOLDER, which is that of the Python files. Prints {"own": [...], "stock": [...]}: for each cell
the messages that answer it, without what differs from one process to the next.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from jupyter_client import BlockingKernelClient
from jupyter_client.connect import write_connection_file

PACKAGE = Path(sys.argv[1]).resolve() / "effect_jupyter"
TIMEOUT = 60
# Names of files of cells, addresses of objects, times, the indentation of code in tracebacks, and the warnings of the
# compiler when it is asked whether a cell awaits something, which IPython does twice.
VARIES = re.compile(
    r"(/\S*/ipykernel_\d+/)?\b\d+\.py|<ipython-input-\d+-\w+>|\b0x[0-9a-f]+\b|\b[\d.]+(e\+\d+)? [nmµμu]?s\b"
    r"|(?<=\d) +(?=\w)|^<>:\d+: .*\n",
    re.MULTILINE,
)


def plain(value):
    if isinstance(value, str):
        return VARIES.sub("", value)
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list) else value


def run(client, source):
    """The answers to a cell; text of one stream is one text, wherever it was divided."""
    request = client.execute(source, allow_stdin=False, stop_on_error=False)
    answers = []
    while True:
        message = client.get_iopub_msg(timeout=TIMEOUT)
        if message["parent_header"].get("msg_id") != request:
            continue
        kind, content = message["msg_type"], message["content"]
        if kind == "status":
            if content["execution_state"] == "idle":
                break
            continue
        if kind == "stream":
            texts = [answer for answer in answers if answer[0] == "stream" and answer[1]["name"] == content["name"]]
            if texts and not any(answer[0] != "stream" for answer in answers[answers.index(texts[-1]) :]):
                texts[-1][1]["text"] += content["text"]
                continue
        answers.append([kind, content])
    reply = client.get_shell_msg(timeout=TIMEOUT)["content"]
    reply.pop("engine_info", None)
    return plain([*answers, ["reply", reply]])


def outcomes(command, prepare, cells):
    with tempfile.TemporaryDirectory() as folder:
        path, _ = write_connection_file(f"{folder}/kernel.json", transport="ipc", ip=f"{folder}/kernel")
        environment = {**os.environ, "JPY_PARENT_PID": str(os.getpid()), "PYTHONWARNINGS": ""}
        kernel = subprocess.Popen([sys.executable, *command, path], env=environment, cwd=folder)
        client = BlockingKernelClient(connection_file=path)
        client.load_connection_file()
        client.start_channels(hb=False)
        try:
            client.wait_for_ready(timeout=TIMEOUT)
            client.execute(prepare, silent=True, reply=True, timeout=TIMEOUT)
            return [run(client, cell) for cell in cells]
        finally:
            client.stop_channels()
            kernel.kill()
            kernel.wait()


def main():
    cells = json.load(sys.stdin)
    options = {"options": {"workingDir": None, "makeWorkingDir": False, "env": {}}}
    setup = (PACKAGE / "kernel" / "setup.py").read_text() + "\npatch()\nuse(options)\nset_up()\n"
    own = outcomes([str(PACKAGE / "kernel" / "main.py")], f"exec({setup!r}, {options!r})", cells)
    stock = outcomes(
        ["-m", "ipykernel_launcher", "--HistoryManager.hist_file=:memory:", "-f"], "%colors nocolor", cells
    )
    json.dump({"own": own, "stock": stock}, sys.stdout)


main()
