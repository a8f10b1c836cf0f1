"""The compiled code of `setup.py`, which a client runs in a kernel with a connection of its own."""

import os

with open(os.path.join(os.path.dirname(__file__), "setup.py"), encoding="utf-8") as source:
    # Named as code that a client sends.
    code = compile(source.read(), "<string>", "exec", dont_inherit=True)
