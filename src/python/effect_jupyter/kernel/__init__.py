"""What is in a kernel: its application, set-up, streams, interrupts, tracebacks and variables."""

import os
import sys


def load_application():
    """Returns the class of the application. Afterwards no import leads to our folder, and bytecode is written as usual."""
    from effect_jupyter.kernel.application import KernelApp

    sys.path.remove(os.path.dirname(os.path.dirname(__path__[0])))
    sys.dont_write_bytecode = bool(sys.flags.dont_write_bytecode)
    return KernelApp
