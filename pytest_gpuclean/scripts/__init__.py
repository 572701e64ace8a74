"""The functions for scripts and notebooks: import them from `pytest_gpuclean`. None of them knows pytest.

The script's own is what it starts inside of `watch()`. Outside of any, it is what it starts from the import of the
first function here that stops processes (see `mark.py`); of that, only what such a function is about is stopped.
"""
