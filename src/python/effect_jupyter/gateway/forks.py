"""Makes Jupyter fork kernels instead of starting processes."""

import inspect
import os
import sys
from typing import Any

from jupyter_client.provisioning import local_provisioner

PARAMETERS = ["cmd", "stdin", "stdout", "stderr", "env", "independent", "cwd", "kw"]


def is_known(module):
    """Tells whether Jupyter starts processes by the function that `install` replaces."""
    launch = getattr(module, "launch_kernel", None)
    return (
        launch is not None
        and "launch_kernel" in module.LocalProvisioner.launch_kernel.__code__.co_names
        and list(inspect.signature(launch).parameters) == PARAMETERS
    )


def install(zygote, script, module: Any = local_provisioner):
    """Forks kernels that run `script` from now on. Returns whether that is possible."""
    if not is_known(module):
        zygote.give_up("This is another Jupyter than the one they were made for")
        return False
    launch_kernel = module.launch_kernel

    def launch(cmd, *, env=None, cwd=None, **kwargs):
        process = None
        is_ours = cmd[:2] == [sys.executable, script]
        can_fork = (
            kwargs.keys() <= {"stderr", "pass_fds"} and env is not None and cwd is not None and os.path.isdir(cwd)
        )
        if is_ours and can_fork:
            process = zygote.fork(cmd[1:], env, cwd, kwargs.get("stderr"), *kwargs.get("pass_fds", ()))
        return launch_kernel(cmd, env=env, cwd=cwd, **kwargs) if process is None else process

    module.launch_kernel = launch
    return True
