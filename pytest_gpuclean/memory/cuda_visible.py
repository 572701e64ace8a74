"""CUDA_VISIBLE_DEVICES, read as CUDA reads it: which cards a process sees, and as which `cuda:N`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from pytest_gpuclean.memory.cards import Card

VARIABLE = "CUDA_VISIBLE_DEVICES"
ORDER_VARIABLE = "CUDA_DEVICE_ORDER"


@dataclass(frozen=True, slots=True, kw_only=True)
class Visible:
    """The cards that CUDA shows to a process, in its order: the first is `cuda:0`."""

    cards: tuple[Card, ...] = ()
    problem: str = ""
    """What is wrong with the variable, in a sentence; empty where nothing is."""
    note: str = ""
    """Where the numbers may be other ones for CUDA; empty where they are certain."""


class _EntryError(Exception):
    """An entry that hides itself and what comes after it."""


def read_visible(text: str | None, cards: Sequence[Card], order: str | None = None) -> Visible:
    """Say which cards are visible.

    Args:
        text: the value of CUDA_VISIBLE_DEVICES; None where it is not set.
        cards: every card and instance, in NVML's order.
        order: the value of CUDA_DEVICE_ORDER; None where it is not set.
    """
    usable = [card for card in cards if not card.is_barred]
    if text is None:
        return _numbered([card for card in usable if not card.is_mig], usable, "", order)
    entries = [entry.strip() for entry in text.split(",")]
    if entries == [""]:
        return Visible()
    chosen: list[Card] = []
    problem = ""
    kind = _kind_of(entries[0])
    for place, entry in enumerate(entries):
        try:
            card = _find(entry, kind, usable)
        except _EntryError as error:
            problem = _problem(text, entries[place:], str(error))
            break
        if card in chosen:
            return Visible(problem=f"{VARIABLE}={text!r}: {entry!r} names a card twice, and so CUDA sees none")
        chosen.append(card)
    return _numbered(chosen, usable, problem, order if kind == "index" else "PCI_BUS_ID")


def _kind_of(entry: str) -> str:
    return next((kind for kind in ("GPU-", "MIG-") if entry.startswith(kind)), "index")


def _find(entry: str, kind: str, usable: Sequence[Card]) -> Card:
    if _kind_of(entry) != kind:
        raise _EntryError("is not of the kind of the first entry")
    if kind == "index":
        return _by_index(entry, [card for card in usable if not card.is_mig])
    found = [card for card in usable if card.is_mig == (kind == "MIG-") and _is_named(card, entry)]
    if len(found) != 1:
        raise _EntryError(f"is the beginning of {len(found)} UUIDs" if found else "is no UUID of a card here")
    return found[0]


def _is_named(card: Card, beginning: str) -> bool:
    return card.uuid.startswith(beginning) or card.legacy_uuid == beginning


def _by_index(entry: str, physical: Sequence[Card]) -> Card:
    # CUDA reads a number as C's strtol does: what follows the digits is passed over.
    match = re.match(r"[+-]?\d+", entry, re.ASCII)
    if match is None:
        raise _EntryError("is no number and no UUID" if entry else "is an empty entry")
    index = int(match[0])
    if index < 0:
        raise _EntryError("ends the list")
    if index >= len(physical):
        raise _EntryError(f"is no card here: there {_count(len(physical))}")
    return physical[index]


def _count(number: int) -> str:
    return "is 1" if number == 1 else f"are {number}" if number else "is none"


def _problem(text: str, hidden: Sequence[str], reason: str) -> str:
    if hidden[0] == "-1":  # the usual way to say "no card", or "no more"
        return ""
    after = f", and hides {', '.join(map(repr, hidden[1:]))} after it" if hidden[1:] else ""
    return f"{VARIABLE}={text!r}: {hidden[0]!r} {reason}{after}"


def _numbered(chosen: Sequence[Card], usable: Sequence[Card], problem: str, order: str | None) -> Visible:
    instances = [instance for card in chosen for instance in _instances_of(card, usable)]
    # CUDA shows a process one instance, and no whole card beside it.
    seen = instances[:1] or [card for card in chosen if not card.is_partitioned]
    whole_cards = [card for card in usable if not card.is_mig]
    is_sorted_by_bus = (order or "").strip() == "PCI_BUS_ID" or len({card.name for card in whole_cards}) < 2
    note = (
        ""
        if is_sorted_by_bus
        else "the cards differ, and CUDA puts the fastest first: its numbers may be other ones, "
        f"unless {ORDER_VARIABLE}=PCI_BUS_ID is set"
    )
    cards = tuple(replace(card, device=f"cuda:{number}") for number, card in enumerate(seen))
    return Visible(cards=cards, problem=problem, note=note)


def _instances_of(card: Card, usable: Sequence[Card]) -> list[Card]:
    if card.is_mig:
        return [card]
    return [other for other in usable if other.is_mig and other.parent_uuid == card.uuid and card.is_partitioned]
