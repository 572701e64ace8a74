"""What a test needs before it may run: cards (`gpu_require`)."""

from __future__ import annotations

from functools import partial

import pytest

from pytest_gpuclean.memory.need import Need
from pytest_gpuclean.memory.visible_cards import VisibleCards
from pytest_gpuclean.plugin import retention
from pytest_gpuclean.plugin.cards import holders_of, nvml_of
from pytest_gpuclean.plugin.requirements import Requirements, need_of
from pytest_gpuclean.plugin.settings import settings_of
from pytest_gpuclean.plugin.telling import say

NEED = pytest.StashKey[Need]()


class Needs:
    """Holds tests back. Registered where a test has such a marker, whatever else of the plugin is on."""

    def __init__(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """Read the markers of all tests, before any of them runs.

        Args:
            config: of the run.
            items: its tests.

        Raises:
            pytest.UsageError: where a marker does not parse.
        """
        nvml = nvml_of(config)
        tell_line = partial(say, config)
        self._requirements = Requirements(
            VisibleCards(nvml),
            settings_of(config).settle_seconds,
            partial(holders_of, nvml),
            lambda what: tell_line(f"waiting for {what}"),
        )
        for item in items:
            need = need_of(item)
            if need is not None:
                item.stash[NEED] = need

    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Skip a test whose needs are not met: after skip marks were looked at, before any fixture comes up."""
        need = item.stash.get(NEED, None)
        if need is not None:
            unmet = self._requirements.unmet(need, partial(retention.clear_kept_frames, item, frozenset()))
            if unmet:
                retention.skip_at_item(unmet)
