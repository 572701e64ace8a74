"""What a test needs of the cards, and whether they have it: decided over plain figures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pytest_gpuclean.memory.cards import Card
from pytest_gpuclean.units import MiB, format_size


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """So many cards, each of them with so much memory."""

    count: int = 1
    memory_bytes: int | None = None
    """What each has; None where that does not matter."""
    free_bytes: int | None = None
    """What is free on each now; None where that does not matter."""

    def __str__(self) -> str:
        cards = "a GPU" if self.count == 1 else f"{self.count} GPUs"
        memory = f"with {format_size(self.memory_bytes)}" if self.memory_bytes is not None else ""
        free = ""
        if self.free_bytes is not None:
            word = ", of that" if memory else " with"
            free = f"{word} {format_size(self.free_bytes)} free"
        return f"{cards} {memory}".rstrip() + free


@dataclass(frozen=True, slots=True, kw_only=True)
class Lack:
    """What is missing."""

    reason: str
    """`needs 2 GPUs with 20.0 GiB: 1 of 2 has that (cuda:0 24.0 GiB, cuda:1 12.0 GiB)`."""
    may_come: bool = False
    """Whether others have it and may give it back."""
    short: tuple[Card, ...] = ()
    """The cards that would do, had they more free memory."""


def lack_of(need: Need, cards: Sequence[Card], own_bytes: Mapping[str, int], *, hint: str = "") -> Lack | None:
    """Tell what the cards lack; None where they have what is needed.

    Args:
        need: what the test says.
        cards: the visible ones.
        own_bytes: by device, what this process itself has in use there and does not give back by waiting.
        hint: why there may be fewer cards than somebody expects.
    """
    if len(cards) < need.count:
        return Lack(reason=f"needs {need}: {_how_many(len(cards))}{_figures(map(_total, cards))}{_because(hint)}")
    least_bytes = max(need.memory_bytes or 0, need.free_bytes or 0)
    big = [card for card in cards if not least_bytes or (card.total_bytes or 0) >= least_bytes]
    if len(big) < need.count:
        figures = _figures(_total(card, than=least_bytes) for card in cards)
        return Lack(reason=f"needs {need}: {_that_many(len(big), cards)} that{figures}{_because(hint)}")
    if need.free_bytes is None:
        return None
    short = [card for card in big if (card.free_bytes or 0) < need.free_bytes]
    if len(big) - len(short) >= need.count:
        return None
    figures = _figures(_free(card, than=need.free_bytes) for card in cards)
    hopeless = [card for card in short if _never_frees(card, need.free_bytes, own_bytes)]
    return Lack(
        reason=f"needs {need}: {_that_many(len(big) - len(short), cards)} that{figures}",
        may_come=len(big) - len(hopeless) >= need.count,
        short=tuple(short),
    )


def _never_frees(card: Card, free_bytes: int, own_bytes: Mapping[str, int]) -> bool:
    """Whether the others could all go, and it would still not be enough."""
    return card.free_bytes is None or (card.total_bytes or 0) - own_bytes.get(card.device, 0) < free_bytes


def _how_many(count: int) -> str:
    return "none is visible" if not count else "1 is visible" if count == 1 else f"{count} are visible"


def _that_many(count: int, cards: Sequence[Card]) -> str:
    return f"{count or 'none'} of {len(cards)} {'has' if count < 2 else 'have'}"


def _because(hint: str) -> str:
    return f"; {hint}" if hint else ""


def _figures(texts: Iterable[str]) -> str:
    joined = ", ".join(texts)
    return f" ({joined})" if joined else ""


def _total(card: Card, than: int = 0) -> str:
    if card.total_bytes is None:
        return f"{card.label} cannot be measured: {'; '.join(card.trouble) or 'the driver does not say'}"
    return f"{card.label} {_size(card.total_bytes, than)}"


def _free(card: Card, than: int) -> str:
    if card.free_bytes is None or card.total_bytes is None:
        return f"{card.label} cannot be measured: {'; '.join(card.trouble) or 'the driver does not say'}"
    return f"{card.label} {_size(card.free_bytes, than)} free of {format_size(card.total_bytes)}"


def _size(size_bytes: int, than: int) -> str:
    """Write a size so that it does not read like another one that it falls short of: a 24 GB card has 23.99 GiB."""
    text = format_size(size_bytes)
    return f"{size_bytes / MiB:.0f} MiB" if size_bytes < than and text == format_size(than) else text
