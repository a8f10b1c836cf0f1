"""IPython in the process of its caller: runs each line of standard input as a cell and prints the milliseconds it took."""

import contextlib
import io
import sys
import time

from IPython.core.interactiveshell import InteractiveShell

shell = InteractiveShell.instance()
answers = sys.stdout
for line in sys.stdin:
    with contextlib.redirect_stdout(io.StringIO()):
        before = time.perf_counter()
        shell.run_cell(line, store_history=True)
        took = time.perf_counter() - before
    print(took * 1000, file=answers, flush=True)
