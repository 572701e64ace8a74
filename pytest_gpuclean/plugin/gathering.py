"""What other plugins and conftest files bring: probes, cleaners and families of processes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pytest_gpuclean.memory.interface import first_line
from pytest_gpuclean.plugin.guard import Guard


def gather(config: pytest.Config, name: str, kind: Any, tell: Callable[[str], None]) -> list[Any]:
    """Ask everybody who implements a hook, each by itself; what is none of the kind is told and left out.

    Args:
        config: of the run, which the hook is handed where it asks for it.
        name: of the hook.
        kind: the Protocol that the parts implement.
        tell: told what went wrong, in a sentence.
    """
    found: list[Any] = []
    for implementation in getattr(config.hook, name).get_hookimpls():
        with Guard(lambda error: tell(f"{name}: {first_line(error)}")):
            for part in implementation.function(*[config for _ in implementation.argnames]) or ():
                if isinstance(part, kind):
                    found.append(part)
                else:
                    tell(f"{name}: {type(part).__name__} is no {kind.__name__}")
    return found
