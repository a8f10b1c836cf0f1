"""The Python code of effect-jupyter. Its files are read and started by their path; its folder contains nothing else."""
