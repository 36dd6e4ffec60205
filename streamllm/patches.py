"""What the stand-ins for functions of MLX and of models have in common."""

import threading

LOCK = threading.RLock()
"""Held while one of them is in its place, lest another thread goes through it: forwards of threads take turns."""
