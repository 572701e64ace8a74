"""What a test needs before it may run: cards (`gpu_require`), and to have them for itself (`gpu_exclusive`)."""

from __future__ import annotations

from collections.abc import Callable, Generator
from functools import partial

import pytest

from pytest_gpuclean.memory.need import Need
from pytest_gpuclean.memory.visible_cards import VisibleCards
from pytest_gpuclean.plugin import internals, retention
from pytest_gpuclean.plugin.cards import holders_of, nvml_of
from pytest_gpuclean.plugin.clock import clock_of
from pytest_gpuclean.plugin.exclusive import Exclusive, timeout_of
from pytest_gpuclean.plugin.guard import guard_of
from pytest_gpuclean.plugin.requirements import Requirements, need_of
from pytest_gpuclean.plugin.settings import settings_of
from pytest_gpuclean.plugin.telling import Telling, say

NEED = pytest.StashKey[Need]()
TIMEOUT_SECONDS = pytest.StashKey[float]()


class Needs:
    """Holds tests back. Registered where a test has such a marker, whatever else of the plugin is on."""

    def __init__(self, config: pytest.Config, items: list[pytest.Item], telling: Callable[[], Telling]) -> None:
        """Read the markers of all tests, before any of them runs.

        Args:
            config: of the run.
            items: its tests.
            telling: gives what prints the summary.

        Raises:
            pytest.UsageError: where a marker does not parse.
        """
        nvml = nvml_of(config)
        self._clock = clock_of(config)
        self._telling = telling
        self._guard = guard_of(config, "gpu_require or gpu_exclusive has not held a test back")
        self._not_free = ""
        """Why the test that is due cannot have its devices for itself."""
        self._requirements = Requirements(
            VisibleCards(nvml),
            settings_of(config).settle_seconds,
            partial(holders_of, nvml),
            lambda what: say(config, f"waiting for {what}"),
        )
        self._exclusive = Exclusive(nvml, lambda what: say(config, f"waiting for {what}"), self._note_gap)
        for item in items:
            need = need_of(item)
            if need is not None:
                item.stash[NEED] = need
            timeout = timeout_of(item)
            if timeout is not None:
                item.stash[TIMEOUT_SECONDS] = timeout

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """Hold the devices around everything of a test: also around the clock of pytest-timeout, and all reruns."""
        timeout = None
        with self._guard:
            timeout = item.stash.get(TIMEOUT_SECONDS, None) if item.get_closest_marker("skip") is None else None
        if timeout is None:
            return (yield)
        try:
            with self._guard:
                self._not_free = self._exclusive.take(item, timeout)
            return (yield)
        finally:
            self._not_free = ""
            with self._guard:
                self._exclusive.release()

    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Skip a test whose needs are not met: after skip marks were looked at, before any fixture comes up."""
        __tracebackhide__ = True
        if self._not_free:
            pytest.fail(self._not_free, pytrace=False)
        unmet = ""
        with self._guard:
            unmet = self._unmet(item)
        if unmet:
            internals.skip_at_item(unmet)

    def _unmet(self, item: pytest.Item) -> str:
        need = item.stash.get(NEED, None)
        if need is None:
            return ""
        with self._clock.stopped():
            return self._requirements.unmet(need, partial(retention.clear_kept_frames, item, frozenset()))

    def _note_gap(self, reason: str) -> None:
        self._telling().add_note(f"gpu_exclusive holds nobody back: {reason}")
