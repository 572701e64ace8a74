"""Values of options, as argparse wants them refused."""

from __future__ import annotations

import argparse

from pytest_gpuclean.errors import InputError
from pytest_gpuclean.units import parse_seconds


def read_seconds(text: str) -> float:
    """Read a length of time.

    Raises:
        argparse.ArgumentTypeError: where it is none.
    """
    try:
        return parse_seconds(text, "")
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error).removeprefix(": ")) from None
