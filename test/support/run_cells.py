"""Runs the cells on standard input, a JSON list of sources, by Jupyter's own executor; prints the outputs of each."""

import json
import sys

import nbformat.v4
from nbclient import NotebookClient

cells = [nbformat.v4.new_code_cell(source) for source in json.load(sys.stdin)]
notebook = nbformat.v4.new_notebook(cells=cells)
NotebookClient(notebook, kernel_name="python3", allow_errors=True, timeout=60).execute()
json.dump([cell["outputs"] for cell in notebook["cells"]], sys.stdout)
