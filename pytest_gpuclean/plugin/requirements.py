"""`gpu_require`: whether a test has the cards that it needs, and the wait for memory that others still hold."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

import pytest

from pytest_gpuclean.cleanup import CLEANERS
from pytest_gpuclean.cleanup.interface import Occasion
from pytest_gpuclean.cleanup.runner import run_cleanup
from pytest_gpuclean.cleanup.settle import Patience, wait_until
from pytest_gpuclean.errors import InputError
from pytest_gpuclean.memory import DEVICE_PROBES
from pytest_gpuclean.memory.cards import Card
from pytest_gpuclean.memory.gauge import Gauge, in_use
from pytest_gpuclean.memory.interface import first_line
from pytest_gpuclean.memory.need import Lack, Need, lack_of
from pytest_gpuclean.memory.visible_cards import Seen
from pytest_gpuclean.model import Unavailable
from pytest_gpuclean.plugin.marks import said_on
from pytest_gpuclean.units import format_seconds, format_size, parse_count, parse_size

_LEAST_WAIT_SECONDS = 0.1
"""Of a test whose like have waited in vain."""


class Cards(Protocol):
    """Where the figures of the visible cards come from."""

    def read(self) -> Seen | Unavailable:
        """Read them, without initialising anything."""


def need_of(item: pytest.Item) -> Need | None:
    """Read what a test needs off its markers; None where they say nothing of it.

    Raises:
        pytest.UsageError: where a marker does not parse, naming it and the node.
    """
    if item.get_closest_marker("gpu_require") is None:
        return None
    said = {name: found for (_, name), found in said_on(item, ("gpu_require",)).items()}
    try:
        count, source = said.get("count", (1, ""))
        if parse_count(count, f"{source}: count") == 0:
            raise InputError(f"{source}: count={count!r} needs nothing; write 1 or more")
        sizes = {
            name: parse_size(said[name][0], f"{said[name][1]}: {name}") for name in ("memory", "free") if name in said
        }
    except InputError as error:
        raise pytest.UsageError(str(error)) from None
    return Need(count=parse_count(count, source), memory_bytes=sizes.get("memory"), free_bytes=sizes.get("free"))


class Requirements:
    """Decides, test by test, whether the cards are there.

    Args:
        cards: reads the visible ones.
        settle_seconds: how long to wait for memory that others may give back.
        holders_of: says who uses a card, a phrase each.
        tell_wait: says what a long wait is for.
        gauge: what this process itself has in use.
    """

    def __init__(
        self,
        cards: Cards,
        settle_seconds: float,
        holders_of: Callable[[Card], Iterable[str]],
        tell_wait: Callable[[str], None],
        gauge: Gauge | None = None,
    ) -> None:
        self._cards = cards
        self._settle_seconds = settle_seconds
        self._holders_of = holders_of
        self._tell_wait = tell_wait
        self._gauge = gauge or Gauge("device", [probe() for probe in DEVICE_PROBES])
        self._patience: dict[Need, Patience] = {}

    def unmet(self, need: Need, let_go: Callable[[], None] = lambda: None) -> str:
        """Say why a test cannot run; the empty text where it can. May wait for free memory.

        Args:
            need: what it needs.
            let_go: lets go of what the runner keeps of the tests before, where memory is short.
        """
        try:
            return self._unmet(need, let_go)
        except Exception as error:  # trouble of our own is no failure of the test
            return f"needs {need}: cannot be measured: {first_line(error)}"

    def _unmet(self, need: Need, let_go: Callable[[], None]) -> str:
        lack = self._look(need)
        if isinstance(lack, Lack) and lack.short:
            let_go()
            self._give_back()
            lack = self._look(need)
        if not isinstance(lack, Lack):
            return lack
        if not lack.may_come:
            return "; ".join([lack.reason, *self._holders(lack)])
        patience = self._patience.setdefault(need, Patience(self._settle_seconds, _LEAST_WAIT_SECONDS))
        seconds = min(patience.seconds, self._settle_seconds)
        last: Lack | str = lack

        def is_met() -> bool:
            nonlocal last
            last = self._look(need)
            return last == ""

        met = wait_until(
            is_met,
            seconds,
            may_go_on=lambda: isinstance(last, Lack) and last.may_come,
            on_long_wait=lambda: self._tell_wait(f"free memory: a test {lack.reason}"),
        )
        patience.learn(met)
        if not isinstance(last, Lack):
            return last
        return "; ".join([f"{last.reason}, after {format_seconds(seconds)}", *self._holders(last)])

    def _look(self, need: Need) -> Lack | str:
        seen = self._cards.read()
        if isinstance(seen, Unavailable):
            return f"needs {need}: cannot be measured: {seen.source}: {seen.reason}"
        return lack_of(need, seen.cards, self._own_bytes(), hint=seen.hint) or ""

    def _own_bytes(self) -> Mapping[str, int]:
        own: dict[str, int] = {}
        for reading in self._gauge.read().readings:
            own[reading.device] = own.get(reading.device, 0) + reading.allocated_bytes
        return own

    def _give_back(self) -> None:
        """Give back what this process's frameworks have cached: another framework or process could not use it."""
        snapshot = self._gauge.read()
        if any(reading.reserved_bytes for reading in snapshot.readings):
            cleaners = [cleaner() for cleaner in CLEANERS]
            run_cleanup(cleaners, Occasion(level="quick"), in_use(snapshot), lambda: in_use(self._gauge.read()))

    def _holders(self, lack: Lack) -> list[str]:
        own_bytes = self._own_bytes()
        found = []
        for card in lack.short:
            own = own_bytes.get(card.device, 0)
            who = [*([f"this test process: {format_size(own)}"] if own else []), *self._holders_of(card)]
            if who:
                found.append(f"{card.label} is held by {', '.join(who)}")
        return found
