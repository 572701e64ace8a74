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

    Young ones come before older ones, which are taken only where the young do not explain it (an address that was
    known may have been given to something new); nothing is taken that is larger than what is still to be explained.

    Args:
        sizes: bytes of each storage that nobody else accounts for, oldest first.
        older: those of them that were there before.
        leaked_bytes: what is to be explained.
        largest_bytes: no single one is larger than this; the leak itself by default.
    """
    chosen: list[Identity] = []
    rest = leaked_bytes
    slack = int(leaked_bytes * _TOLERANCE) + _GRAIN_BYTES
    known = set(older)
    largest = leaked_bytes if largest_bytes is None else largest_bytes
    for is_old in (False, True):
        group = [(size, order, identity) for order, (identity, size) in enumerate(sizes.items())]
        for size, _, identity in sorted(group, reverse=True):
            if (identity in known) == is_old and size <= min(rest, largest) + slack:
                if rest <= slack:
                    break
                chosen.append(identity)
                rest -= size
    return chosen
