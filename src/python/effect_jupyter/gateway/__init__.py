"""The gateway: its supervisor, Jupyter Kernel Gateway with patches, and the process that kernels are forked from."""
