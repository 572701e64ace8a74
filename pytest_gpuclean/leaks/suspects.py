"""Which of the storages that are alive a leak is made of: numbers alone."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

Identity = tuple[str, int]
"""Of a storage: what its address counts in, and the address."""

_TOLERANCE = 0.02
_SLACK_BYTES = 256 * 1024
"""How far the parts may add up to something else than the leak: allocators round, and small things went meanwhile."""


def choose_suspects(
    sizes: Mapping[Identity, int],
    older: Collection[Identity],
    leaked_bytes: int,
    largest_bytes: int | None = None,
    told: Collection[Identity] = (),
) -> list[Identity]:
    """Choose the storages that explain a leak best, the largest first.

    Where the young that are no larger do not explain it, one that is larger is part of it, the smallest such: something
    else was freed meanwhile. Where there is none, older ones are taken if they explain it: an address that was known
    may have been given to something new; those of which that is not so come last.

    Args:
        sizes: bytes of each storage that nobody else accounts for, oldest first.
        older: those of them that were there before.
        leaked_bytes: what is to be explained.
        largest_bytes: no single one is larger than this; the leak itself by default.
        told: those of the older on which the same still stands as before.
    """
    slack = max(int(leaked_bytes * _TOLERANCE), min(_SLACK_BYTES, leaked_bytes // 4))
    largest = (leaked_bytes if largest_bytes is None else largest_bytes) + slack
    known = set(older)
    ranked = sorted(((size, order, identity) for order, (identity, size) in enumerate(sizes.items())), reverse=True)
    young = [(identity, size) for size, _, identity in ranked if identity not in known]
    old = [(identity, size) for size, _, identity in ranked if identity in known and size <= largest]
    old.sort(key=lambda one: one[0] in told)
    chosen, rest = _fill([one for one in young if one[1] <= largest], leaked_bytes, slack)
    if rest > slack and largest_bytes is None and (larger := [one for one, size in young if size > largest]):
        return [larger[-1], *chosen]
    more, left = _fill(old, rest, slack)
    return chosen + more if left <= slack else chosen


def _fill(candidates: Sequence[tuple[Identity, int]], rest: int, slack: int) -> tuple[list[Identity], int]:
    """Take the largest that fit, as long as there is something to explain; give what stays unexplained too."""
    taken = []
    for identity, size in candidates:
        if rest > slack and size <= rest + slack:
            taken.append(identity)
            rest -= size
    return taken, rest
