"""`python -m pytest_gpuclean.cli`: the command where its script is not on the path."""

import sys

from pytest_gpuclean.cli import main

sys.exit(main())
