"""Which of the storages that are alive a leak is made of: numbers alone."""

from __future__ import annotations

from collections.abc import Collection, Mapping

Identity = tuple[str, int]
"""Of a storage: what its address counts in, and the address."""

_TOLERANCE = 0.02
"""How far the parts may add up to more than the leak: allocators round, and other memory went back meanwhile."""
_GRAIN_BYTES = 4096


def choose_suspects(
    sizes: Mapping[Identity, int], older: Collection[Identity], leaked_bytes: int, largest_bytes: int | None = None
) -> list[Identity]:
    """Choose the storages that explain a leak best, the largest first.

    Older ones are taken only where the young do not explain it and they do: an address that was known may have been
    given to something new. Nothing is taken that is larger than what is still to be explained.

    Args:
        sizes: bytes of each storage that nobody else accounts for, oldest first.
        older: those of them that were there before.
        leaked_bytes: what is to be explained.
        largest_bytes: no single one is larger than this; the leak itself by default.
    """
    slack = int(leaked_bytes * _TOLERANCE) + _GRAIN_BYTES
    known = set(older)
    largest = leaked_bytes if largest_bytes is None else largest_bytes
    fitting = [
        (size, order, identity) for order, (identity, size) in enumerate(sizes.items()) if size <= largest + slack
    ]
    ranked = [(identity, size) for size, _, identity in sorted(fitting, reverse=True)]

    def fill(candidates: list[tuple[Identity, int]], rest: int) -> tuple[list[Identity], int]:
        taken = []
        for identity, size in candidates:
            if rest > slack and size <= rest + slack:
                taken.append(identity)
                rest -= size
        return taken, rest

    young, rest = fill([one for one in ranked if one[0] not in known], leaked_bytes)
    old, left = fill([one for one in ranked if one[0] in known], rest)
    return young + old if old and left <= slack else young
