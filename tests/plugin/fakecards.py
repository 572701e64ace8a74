"""Cards of no machine, for inner suites: `config.stash[NVML] = FakeNvml(...)` in a conftest."""

import os
import time

from pytest_gpuclean.memory.cards import Card, CardUse, CardUser
from pytest_gpuclean.memory.cuda_visible import read_visible
from pytest_gpuclean.model import Unavailable
from pytest_gpuclean.plugin.cards import NVML

GiB = 2**30

__all__ = ["NVML", "FakeNvml", "GiB"]


class FakeNvml:
    """Answers what NVML would.

    Args:
        totals_gib: what each card has.
        used_gib: what is in use on each.
        freed_after: seconds until nothing is in use any more.
        reason: why it cannot be asked at all.
        holder: a process that uses the first card.
    """

    def __init__(self, *totals_gib, used_gib=(), freed_after=None, reason="", holder=None):
        self.totals_gib, self.used_gib = totals_gib, dict(enumerate(used_gib))
        self.freed_after, self.reason, self.holder = freed_after, reason, holder
        self.begin = None
        self.reads = 0

    is_absent = False
    given_up = None

    def devices(self):
        if self.reason:
            return Unavailable("nvml", self.reason)
        self.reads += 1
        self.begin = self.begin or time.monotonic()
        if self.freed_after is not None and time.monotonic() - self.begin >= self.freed_after:
            self.used_gib = {}
        return tuple(self._card(index, gib) for index, gib in enumerate(self.totals_gib))

    def visibility(self):
        cards = self.devices()
        if isinstance(cards, Unavailable):
            return cards
        return read_visible(os.environ.get("CUDA_VISIBLE_DEVICES"), cards, os.environ.get("CUDA_DEVICE_ORDER"))

    def visible(self):
        found = self.visibility()
        return found if isinstance(found, Unavailable) else found.cards

    def use(self):
        cards = self.devices()
        return cards if isinstance(cards, Unavailable) else self.use_of(cards)

    def use_of(self, cards):
        used = round(self.used_gib.get(0, 0) * GiB)
        holder = () if self.holder is None else (CardUser(pid=self.holder, used_bytes=used),)
        return tuple(CardUse(card=card, users=() if card.index else holder) for card in cards)

    def _card(self, index, gib):
        used = self.used_gib.get(index, 0)
        return Card(
            index=index,
            uuid=f"GPU-{index:08x}-fake",
            name=f"Fake {gib:g}",
            total_bytes=round(gib * GiB),
            used_bytes=round(used * GiB),
            free_bytes=round((gib - used) * GiB),
        )
