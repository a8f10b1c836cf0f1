"""Checks whether this machine can sandbox kernels. Failures are reasons of `SandboxError`. Standard library only."""

import os
import re
import subprocess
import sys

from effect_jupyter.sandbox import macos
from effect_jupyter.sandbox.bubblewrap import ISOLATED

# Errors of bubblewrap, and advice.
FAILURES = (
    (
        "Can't mount proc",
        "This is a container that may not mount /proc",
        "docker run --security-opt seccomp=unconfined --security-opt systempaths=unconfined",
    ),
    (
        "RTM_NEWADDR|AppArmor",
        "AppArmor forbids unprivileged user namespaces",
        "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
    ),
    (
        "ENOSPC|No space left",
        "There may be no more user namespaces",
        "sudo sysctl -w user.max_user_namespaces=15000",
    ),
    (
        "No permissions to creat|Creating new namespace failed|setting up uid map|user namespaces",
        "Unprivileged user namespaces are switched off",
        "sudo sysctl -w kernel.unprivileged_userns_clone=1 user.max_user_namespaces=15000",
    ),
)
# Prints the first argument that is not readable.
TRY_TO_READ = "import os, sys; print(*[p for p in sys.argv[1:] if not os.access(p, os.R_OK)][:1], end='')"


# Checks that Landlock can restrict writing; see `sandboxed_kernel.py`.
NO_LANDLOCK = (
    "Sandboxed kernels can write to named pipes and devices that are writable for all users: Linux has no Landlock, or"
    " one before 5.19"
)


class Refused(Exception):
    """The machine cannot sandbox kernels; `reason` is a reason of `SandboxError`."""

    def __init__(self, tag, **details):
        super().__init__(tag)
        self.reason = {"_tag": tag, **details}


def try_out(bwrap, *, readable, workspace, identity):
    """Runs Python in a minimal sandbox."""
    command = [
        bwrap,
        *ISOLATED,
        "--new-session",
        "--die-with-parent",
        "--unshare-net",
        "--ro-bind",
        "/",
        "/",
        "--dev",
        "/dev",
    ]
    command += ["--unshare-pid", "--unshare-user", "--cap-drop", "ALL", "--proc", "/proc", "--"]
    if macos.IS_HERE:
        command = macos.smallest_sandbox()
    command += [sys.executable, "-I", "-S", "-c", TRY_TO_READ, *readable]
    try:
        tried = subprocess.run(
            identity.command(command),
            capture_output=True,
            text=True,
            errors="replace",
            timeout=10,
            cwd=workspace,
            env={"PATH": os.environ.get("PATH", os.defpath)},
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise Refused("StartFailed", detail=f"bubblewrap could not be tried out: {error}", output=[]) from None
    output = tried.stderr.splitlines()
    for pattern, detail, command in FAILURES:
        if tried.returncode != 0 and re.search(pattern, tried.stderr):
            raise Refused("NamespacesDisabled", detail=detail, command=command, output=output)
    if re.search(f"execvp {re.escape(sys.executable)}", tried.stderr):
        raise unreadable(sys.executable, identity)
    if tried.returncode != 0:
        detail = f"bubblewrap ended with exit code {tried.returncode}"
        raise Refused("StartFailed", detail=detail, output=output)
    if tried.stdout:
        raise unreadable(tried.stdout, identity)


def has_landlock():
    import ctypes

    return ctypes.CDLL(None).syscall(444, None, ctypes.c_size_t(0), 1) >= 2


def unreadable(path, identity):
    who = "a kernel" if identity.user is None else f"the user {identity.user['uid']}"
    detail = f'"{path}" must be readable for {who}; install it where all users can read it'
    return Refused("StartFailed", detail=detail, output=[])
