"""What a test or a script has asked to be called at its next cleanup."""

from __future__ import annotations

from collections.abc import Callable

from pytest_gpuclean.cleanup.interface import Occasion, Skip


class CallableCleaner:
    """A function that takes no arguments, as a step of a cleanup."""

    def __init__(self, function: Callable[[], object]) -> None:
        self._function = function
        self.name = f"on_cleanup {getattr(function, '__qualname__', type(function).__name__)}"

    def clean(self, occasion: Occasion) -> str | Skip:  # noqa: ARG002
        """Call it."""
        self._function()
        return "called"
