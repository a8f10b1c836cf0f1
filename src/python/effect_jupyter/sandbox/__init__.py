"""The sandbox: checks, the command of bubblewrap, protected files, limits, and the start of a kernel inside it."""
