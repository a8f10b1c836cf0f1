"""Starts the gateway of one program, with a sandbox for its kernels if one is configured.

The environment variable EFFECT_JUPYTER_SETTINGS is a JSON object: {"host", "port", "workingDir", "runtimeDir",
"logLevel", "kernelEnv": the environment of kernels without that of requests, "fork": true if kernels may be forked,
"preload": modules that forked kernels have imported, "shared": true if programs share the gateway, see `shared.py`,
"isServed": true if programs on other machines are clients, see `join.py`,
"sandbox": see `host.py`, or null, "secret": authorizes requests that restrict a kernel's rules}. The token comes in
KG_AUTH_TOKEN.

Standard output has lines of JSON: {"port": ...} once the server listens, {"refused": {...}} if there can be no
sandbox, {"violation": ..., "kernel": ...} for what a sandbox denied. Logs go to standard error. A port that is
taken ends the process with status 98.
"""

import json
import os
import signal
import site
import sys
import tempfile
import threading

# The folder that contains only this package, instead of the folder of this file.
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path[: not getattr(sys.flags, "safe_path", sys.flags.isolated)] = [ROOT]
sys.dont_write_bytecode = True

from effect_jupyter.gateway import imports, zygote_client
from effect_jupyter.gateway.environment import Environment
from effect_jupyter.sandbox import check, host

if sys.flags.no_site:
    # A project that is installed in place may be writable for a kernel: none of its code runs at every start, and
    # what is above is not looked for there.
    sys.modules["sitecustomize"] = sys.modules["usercustomize"] = imports.NOTHING
    site.main()

printing = threading.Lock()


def send(message):
    """Sends one line to the program, from any thread."""
    with printing:
        print(json.dumps(message), flush=True)


def make_sandbox(settings, runtime_dir, workspace, secret, report):
    """Checks the machine, makes the sandbox and starts its helper, which loads at the same time."""
    host.remove_from_module_path(settings["rules"]["allowWrite"])
    sandbox = host.Sandbox(settings, runtime_dir, workspace, secret)
    sandbox.start_helper(
        on_violation=lambda kernel, line: report({"violation": line, "kernel": kernel}),
        # Without the helper the network is not filtered, and no kernel can start.
        on_end=lambda: os.kill(os.getpid(), signal.SIGKILL),
    )
    readable = [*settings["needed"], *host.python_files()]
    bwrap = settings["tools"].get("bwrap")
    if sys.platform == "linux" and not check.has_landlock():
        print(check.NO_LANDLOCK, file=sys.stderr, flush=True)
    check.try_out(bwrap, readable=readable, workspace=workspace, identity=sandbox.identity)
    return sandbox


def refuse(reason):
    send({"refused": reason})
    sys.exit(1)


def main():
    settings = json.loads(os.environ.pop("EFFECT_JUPYTER_SETTINGS"))
    # Jupyter does not remove its temporary directories; the supervisor removes this one.
    tempfile.tempdir = settings["runtimeDir"]
    sandbox = zygote = leases = None
    report = send
    if settings["shared"]:
        from effect_jupyter.gateway.leases import Leases

        leases = Leases(send)
        report = leases.send
    # That folder is hidden from a sandbox, which has its own caches.
    is_sandboxed = settings["sandbox"] is not None
    environment = Environment(None if is_sandboxed else settings["runtimeDir"])
    try:
        # Sandboxed kernels share no memory, and forked processes are not reliable on systems other than Linux.
        if settings["fork"] and settings["sandbox"] is None and sys.platform == "linux":
            env = environment.of_kernel(settings["kernelEnv"], sys.executable)
            zygote = zygote_client.Zygote(settings["preload"], env=env, cwd=settings["workingDir"])
        if settings["sandbox"] is not None:
            sandbox = make_sandbox(
                settings["sandbox"], settings["runtimeDir"], settings["workingDir"], settings["secret"], report
            )
        imports.defer()
        from effect_jupyter.gateway import app

        if sandbox is not None:
            sandbox.wait_for_helper()
    except check.Refused as refused:
        refuse(refused.reason)
    except Exception as error:
        if settings["sandbox"] is None or isinstance(error, ImportError):
            raise
        refuse({"_tag": "StartFailed", "detail": str(error) or type(error).__name__, "output": []})
    if zygote is not None and settings["preload"]:
        zygote.wait_until_ready()
        if zygote.refusal is not None:
            sys.exit(zygote.refusal)
    app.run(settings, environment, sandbox, zygote, leases, report)


main()
