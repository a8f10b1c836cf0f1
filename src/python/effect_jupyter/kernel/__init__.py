"""The code in a kernel: its application, set-up, streams, interrupts, tracebacks and variables."""

import os
import sys


def load_application():
    """Returns the class of the application. After that no import finds the folder of this package."""
    from effect_jupyter.kernel.application import KernelApp

    sys.path.remove(os.path.dirname(os.path.dirname(__path__[0])))
    sys.dont_write_bytecode = bool(sys.flags.dont_write_bytecode)
    return KernelApp
