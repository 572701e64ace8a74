"""A stand-in for NVIDIA's driver library, which the real nvidia-ml-py loads; `World` says what it tells."""

from functools import cache

from .build import FakenvmlUnavailable, build
from .world import World

__all__ = ["FakenvmlUnavailable", "World", "build", "unavailable_reason"]


@cache
def unavailable_reason() -> str | None:
    """Why it cannot be had here, or None. Builds it where that was not done."""
    try:
        build()
    except FakenvmlUnavailable as error:
        return str(error)
    return None
