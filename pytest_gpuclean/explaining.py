"""What a leak is made of, and who holds it: looked up for what has failed the gate, and for nothing else."""

from __future__ import annotations

import dataclasses
import gc
import sys
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from types import FrameType
from typing import Any, Protocol

from pytest_gpuclean.leaks import causes
from pytest_gpuclean.leaks.autograd import note_graphs
from pytest_gpuclean.leaks.holders import Target, find_holders
from pytest_gpuclean.leaks.suspects import choose_suspects
from pytest_gpuclean.memory.autograd import keeps_own_graph
from pytest_gpuclean.memory.census import each_living
from pytest_gpuclean.memory.graphs import graphs_of
from pytest_gpuclean.memory.living import Block, blocks_on, contents_of
from pytest_gpuclean.memory.reach import Walk
from pytest_gpuclean.memory.residue import Residue
from pytest_gpuclean.model.leaks import Explanation, Holder, Leak
from pytest_gpuclean.model.memory import ARRAYS, Account
from pytest_gpuclean.units import format_size

Identity = tuple[str, int]
Ids = dict[Identity, set[int]]
"""By storage: the `id` of each object that stands on it."""

SEARCH_SECONDS = 1.0
_LEAST_SEEN_BYTES = 16 * 1024
"""What is smaller is not kept in mind: there may be a million of them."""
_MOST_VALUES = 4
"""Objects on one storage that are followed: a tensor, its views."""


class Sites(Protocol):
    """Knows where tensors and arrays were made."""

    def site_of(self, identity: Identity, value: Any) -> str:
        """Name file, line and function; empty where that was not recorded."""

    def lack(self, device: str) -> str:
        """Say why places on a device are not known although they are asked for; empty where there is no reason to."""


class Explainer:
    """Tells what leaked from what was there before, and asks who holds it."""

    def __init__(
        self,
        limit: int,
        fixture_values: Callable[[], Iterable[tuple[int, list[Any]]]],
        known_roots: Callable[[], Mapping[int, str]] = dict,
        opaque_packages: Collection[str] = (),
        sites: Sites | None = None,
    ) -> None:
        """Set it up.

        Args:
            limit: how many leaks of a run are looked up, beside those that count apart.
            fixture_values: gives the values of live fixtures: what they reach is theirs, and no part of a leak.
            known_roots: names objects of the test runner, by their `id`.
            opaque_packages: packages whose objects are not looked into.
            sites: knows where tensors were made; nothing does by default.
        """
        self._limit = self._left = limit
        self._fixture_values = fixture_values
        self._known_roots = known_roots
        self._opaque_packages = opaque_packages
        self._sites = sites
        self._residue = Residue()
        self.is_on = True
        """Whether leaks are looked up at all now."""
        self._older: dict[Account, Ids] = {}
        """What was there before the first test, and what has been told since: the `id` of what stands on each storage.

        Numbers, no objects. An address that was given to something new mostly has another object on it.
        """
        self._seen: dict[Account, tuple[str, Ids]] = {}
        """Whose leak was looked up last, and what was there then, told or not, in the same form."""
        self._least_told: dict[Account, int] = {}
        """The size of the smallest storage that has been told."""
        self._prunings_left = limit

    def begin_module(self) -> None:
        """Take the threads, descriptors and shared memory of now as none of what the tests to come leave."""
        if self._limit:
            self._residue.mark()

    def mark(self) -> None:
        """Take everything that is alive now as older than any leak to come."""
        if self._limit:
            self._older = {}
            for living in each_living():
                storages = self._older.setdefault(living.storage.account, {})
                storages.setdefault(living.storage.identity, set()).add(id(living.value))

    def explained(self, leak: Leak, older: Collection[Identity] = ()) -> Leak:
        """Say what a leak is made of and who holds it, as long as the run's limit is not reached.

        Args:
            leak: what was found.
            older: storages that are known to be older than this leak's window.
        """
        if leak.kind == "peak" or not self._limit or not self.is_on:
            return leak
        if not self._left:
            count = f"{self._limit} leak{'s' if self._limit > 1 else ''}"
            cut = f"who holds it was looked up for {count} of this run: --gpu-leak-explain"
            return dataclasses.replace(leak, explanation=Explanation(cut=cut))
        self._left -= 1
        begin = time.perf_counter()
        found = self._explain(leak, older)
        left = self._residue.left()
        self._residue.mark()
        seconds = time.perf_counter() - begin
        return dataclasses.replace(leak, explanation=dataclasses.replace(found, left=left, seconds=seconds))

    def count_apart(self, leaks: Iterable[Leak]) -> None:
        """Take leaks that are allowed or known off what was looked up: the limit is for those that fail.

        Without its holders a leak cannot be told from a new one, however many are known.

        Args:
            leaks: of one window, with what they are excused by.
        """
        looked_up = (leak.explanation is not None and leak.explanation.seconds > 0 for leak in leaks if leak.excused)
        self._left = min(self._limit, self._left + sum(looked_up))

    def take_in(self, leak: Leak, older: Collection[Identity] = ()) -> None:
        """Note what an allowed leak is made of, so that it is no part of a later one; who holds it is not asked."""
        if self._left and self.is_on:
            self._take(leak, blocks_on(Account(leak.device, leak.source)), older)

    def note_freed(self, changes: Mapping[Account, int]) -> None:
        """Forget what is not alive any more, once as much was freed as something that has been told has.

        What comes next may be given its address, and the `id` of what stood on it, and would pass for older.

        Args:
            changes: by how many bytes each account has changed in a test, or at the end of a fixture.
        """
        for account, least_bytes in self._least_told.items():
            freed_bytes = -min((size for a, size in changes.items() if a.device == account.device), default=0)
            if freed_bytes >= least_bytes and self._prunings_left and self._left:
                self._prunings_left -= 1
                blocks = blocks_on(account)
                self._older[account] = _still_there(self._older.get(account, {}), blocks)
                name, seen = self._seen[account]
                self._seen[account] = name, _still_there(seen, blocks)

    def _take(self, leak: Leak, blocks: Mapping[Identity, Block], older: Collection[Identity]) -> list[Block]:
        account = Account(leak.device, leak.source)
        known = _still_there(self._older.get(account, {}), blocks)
        seen = self._seen_by_another(leak, blocks)
        chosen = self._chosen(blocks, leak, {*known, *seen, *older}, {*known, *seen})
        self._older[account] = known | {block.identity: block.ids for block in chosen}
        seen = {block.identity: block.ids for block in blocks.values() if block.size_bytes >= _LEAST_SEEN_BYTES}
        self._seen[account] = leak.name, seen
        sizes = [block.size_bytes for block in chosen]
        self._least_told[account] = min([*sizes, self._least_told.get(account, sys.maxsize)])
        return chosen

    def _seen_by_another(self, leak: Leak, blocks: Mapping[Identity, Block]) -> Ids:
        """Give what was there at the end of an earlier test: what another one leaks came after it.

        What a fixture, a module or the run leaks may have been there for long.
        """
        name, seen = self._seen.get(Account(leak.device, leak.source), (leak.name, {}))
        return _still_there(seen, blocks) if leak.kind == "test" and name != leak.name else {}

    def _explain(self, leak: Leak, older: Collection[Identity]) -> Explanation:
        blocks = blocks_on(Account(leak.device, leak.source))
        chosen = self._take(leak, blocks, older)
        index_of = {block.identity: index for index, block in enumerate(chosen)}

        def reached_from(value: Any) -> list[int]:
            walk = Walk(self._opaque_packages)
            walk.measure([value])
            return [index_of[identity] for identity in walk.storages & index_of.keys()]

        _lead_from_heads(chosen, blocks.values())
        ours = _parts_of(blocks.values())
        targets = _targets(chosen, ours)
        holding = find_holders(
            targets, known=self._known_roots(), ours=ours, reached_from=reached_from, seconds=SEARCH_SECONDS
        )
        explained_bytes = sum(block.size_bytes for block in chosen)
        lack = self._sites.lack(leak.device) if self._sites is not None else ""
        return Explanation(
            contents=tuple(contents_of(chosen, self._site_of)),
            holders=_with_graphs(holding.holders, chosen, leak.leaked_bytes),
            explained_bytes=explained_bytes,
            unexplained=_unexplained(leak, explained_bytes),
            cut="; ".join(filter(None, (holding.cut, lack))),
        )

    def _chosen(
        self,
        blocks: Mapping[Identity, Block],
        leak: Leak,
        older: Collection[Identity],
        told: Collection[Identity],
    ) -> list[Block]:
        walk = Walk(self._opaque_packages)
        for _, values in self._fixture_values():
            walk.measure(values)
        sizes = {identity: block.size_bytes for identity, block in blocks.items() if identity not in walk.storages}
        # What adds up over many tests: one that kept more than the threshold has been told by itself.
        largest = leak.threshold_bytes if leak.kind in ("module", "session") else None
        chosen = [blocks[identity] for identity in choose_suspects(sizes, older, leak.leaked_bytes, largest, told)]
        # What one can put a finger on comes before what is reached through a graph.
        return sorted(chosen, key=lambda block: (-block.size_bytes, bool(block.owners)))

    def _site_of(self, identity: Identity, value: Any) -> str:
        return self._sites.site_of(identity, value) if self._sites is not None else ""


def _still_there(ids: Ids, blocks: Mapping[Identity, Block]) -> Ids:
    return {
        identity: objects
        for identity, objects in ids.items()
        # What a graph has saved may have had no object of its own.
        if identity in blocks and not (objects and objects.isdisjoint(blocks[identity].ids))
    }


def _with_graphs(holders: tuple[Holder, ...], blocks: Sequence[Block], leaked_bytes: int) -> tuple[Holder, ...]:
    """Say at the largest holder what the autograd graphs of what leaked keep, where they keep anything."""
    # What a graph has saved is no head of one, though it may have a Python object of its own.
    heads = {id(tensor): tensor for block in blocks for tensor in ([one for one, _ in block.owners] or block.values)}
    holders = _with_gradients(holders, heads.values())
    note = note_graphs(graphs_of(heads.values()), leaked_bytes)
    if note is None or not holders:
        return holders
    first = holders[0]
    detail = "; ".join(filter(None, (first.detail, note.text)))
    return (dataclasses.replace(first, detail=detail, cause=note.cause or first.cause), *holders[1:])


def _with_gradients(holders: tuple[Holder, ...], heads: Collection[Any]) -> tuple[Holder, ...]:
    """Name what nobody refers to where a gradient and its parameter keep each other."""
    are_nobody = [holder.kind == causes.NO_HOLDER and ".grad" in holder.chain for holder in holders]
    if not any(are_nobody) or not keeps_own_graph(heads):
        return holders
    words = "a gradient that has a graph of its own (create_graph=True)"
    cause = causes.cause_of(causes.GRADIENT)
    return tuple(
        dataclasses.replace(holder, kind=causes.GRADIENT, chain=words, cause=cause) if is_nobody else holder
        for holder, is_nobody in zip(holders, are_nobody, strict=True)
    )


def _parts_of(blocks: Iterable[Block]) -> set[int]:
    """Give the `id` of everything by which blocks refer to what is alive."""
    return {id(part) for block in blocks for part in (block, block.living, *block.living)}


def _lead_from_heads(chosen: Iterable[Block], blocks: Collection[Block]) -> None:
    """Let what a graph has saved be led to by a tensor that somebody refers to.

    Another one that the graph has saved may lead there too: it has its Python object, and nobody refers to that.
    """
    behind = {id(part.value): part.owner for block in blocks for part in block.living if part.owner is not None}
    heads: dict[int, Any] = {}
    ours = _parts_of(blocks) | {id(behind), id(heads)}

    def note_head(owner: Any) -> None:
        key, passed = id(owner), set()
        while id(owner) in behind and id(owner) not in passed and not _has_referrers([owner], ours):
            passed.add(id(owner))
            owner = behind[id(owner)]
        heads[key] = owner

    for block in chosen:
        for part in block.living:
            if part.owner is not None and id(part.owner) not in heads:
                note_head(part.owner)
    for block in chosen:
        block.living[:] = [part._replace(owner=heads.get(id(part.owner))) for part in block.living]


def _targets(blocks: Sequence[Block], ours: AbstractSet[int]) -> list[Target]:
    """Make of each block what is looked for: what stands on it, or else the tensor that leads to it.

    What a graph has saved may still have its Python object, which then only torch's own code refers to. That is found
    out for one block of each sort: a look takes 25 ms on a heap of a million objects.
    """
    is_graphs_own: dict[tuple[int, int], bool] = {}
    targets = []
    for block in blocks:
        values, owners = block.values[:_MOST_VALUES], block.owners
        if values and owners:
            sort = id(type(values[0])), block.size_bytes
            if sort not in is_graphs_own:
                is_graphs_own[sort] = not _has_referrers(values, ours)
            values = [] if is_graphs_own[sort] else values
        behind = next((Target((owner,), block.size_bytes, way) for owner, way in owners), None)
        if values:
            # What a function of the user's own keeps on its `ctx` has referrers, but they lead to the graph alone.
            targets.append(Target(tuple(values), block.size_bytes, instead=behind))
        elif behind is not None:
            targets.append(behind)
    return targets


def _has_referrers(values: list[Any], ours: AbstractSet[int]) -> bool:
    found = gc.get_referrers(*values)
    return any(id(one) not in ours and one is not values and type(one) is not FrameType for one in found)


def _unexplained(leak: Leak, explained_bytes: int) -> str:
    rest = leak.leaked_bytes - explained_bytes
    if rest <= leak.threshold_bytes:
        return ""
    how_much = "it" if explained_bytes == 0 else f"{format_size(rest)} of it"
    other = "a framework's own buffers" if leak.source == ARRAYS.source else "pinned memory, a captured graph"
    return (
        f"no tensor or array that Python can see accounts for {how_much}: {other}, another library, "
        "or memory that a framework keeps in its own code"
    )
