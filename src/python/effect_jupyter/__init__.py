"""What effect-jupyter runs in Python. Files of it are read and started by their path; nothing else is in its folder."""
