"""Importing this marks what the script starts from now on, by a variable in its environment (`GPUCLEAN_RUN`).

The functions that stop processes import it: a script that changes only its import has started its processes by the time
it calls the first of them, and an orphan of the first run would not be known otherwise.
"""

from pytest_gpuclean.scripts.session import session

session().mark()
