"""Starts an IPython kernel that does not outlive its gateway. Takes the path of a connection file."""

import os
import sys

# The folder that contains only this package, instead of the folder of this file.
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path[: not getattr(sys.flags, "safe_path", sys.flags.isolated)] = [ROOT]
sys.dont_write_bytecode = True

from effect_jupyter.kernel import load_application
from effect_jupyter.system import die_with

die_with(int(os.environ["JPY_PARENT_PID"]))
load_application().launch_instance(connection_file=sys.argv[1])
