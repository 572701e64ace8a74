"""What a framework was told to compute and has not computed yet: its memory comes late, in whoever's window that is."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from pytest_gpuclean.cleanup.settle import wait_until
from pytest_gpuclean.memory.jax import has_computed

_LONGEST_PAUSE_SECONDS = 0.005


class Dispatched:
    """Waits for the results that JAX computes in host memory, where something still has them.

    Args:
        settle_seconds: the upper bound of a wait.
        on_wait: told what a long wait is for.
    """

    def __init__(self, settle_seconds: float, on_wait: Callable[[str], None]) -> None:
        self._settle_seconds = settle_seconds
        self._on_wait = on_wait
        self._is_given_up = False
        """Whether a wait came to its bound: there is no other until all is computed."""

    def is_awaited(self) -> bool:
        """Tell whether there is something to wait for."""
        is_done = has_computed(all_of_it=self._is_given_up)
        if is_done:
            self._is_given_up = False
        return not (is_done or self._is_given_up)

    def wait(self) -> None:
        """Wait until all is computed, where there is something to wait for."""
        if self.is_awaited():
            self._is_given_up = not wait_until(
                partial(has_computed, all_of_it=True),
                self._settle_seconds,
                on_long_wait=partial(self._on_wait, "what JAX still computes"),
                longest_pause_seconds=_LONGEST_PAUSE_SECONDS,
            )
