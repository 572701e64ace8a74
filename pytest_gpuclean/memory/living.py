"""What is alive on one account, block by block, and what it is called: type, dtype, shape and device, never values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pytest_gpuclean.memory.census import Living, each_living
from pytest_gpuclean.memory.storages import StorageReaders
from pytest_gpuclean.model.leaks import Content
from pytest_gpuclean.model.memory import Account

Identity = tuple[str, int]


@dataclass(slots=True, eq=False)
class Block:
    """A storage with everything that stands on it. It refers to the user's tensors: for the length of a look only."""

    identity: Identity
    size_bytes: int
    living: list[Living] = field(default_factory=list)

    @property
    def values(self) -> list[Any]:
        """The objects that stand on it by themselves."""
        return [living.value for living in self.living if living.owner is None]

    @property
    def ids(self) -> set[int]:
        """The `id` of each."""
        return {id(value) for value in self.values}

    @property
    def owners(self) -> list[tuple[Any, str]]:
        """What leads to it, and how."""
        return [(living.owner, living.way) for living in self.living if living.owner is not None]


def blocks_on(account: Account) -> dict[Identity, Block]:
    """Find every block of an account that is alive, about the oldest first."""
    blocks: dict[Identity, Block] = {}
    seen: set[tuple[int, int]] = set()
    for living in each_living():
        storage = living.storage
        if storage.account != account or (id(living.value), id(living.owner)) in seen:
            continue
        seen.add((id(living.value), id(living.owner)))
        block = blocks.get(storage.identity)
        if block is None:
            block = blocks[storage.identity] = Block(storage.identity, storage.size_bytes)
        block.living.append(living)
    return blocks


def contents_of(blocks: list[Block], site_of: Callable[[Identity, Any], str]) -> list[Content]:
    """Group blocks by what stands on them, the largest group first.

    Args:
        blocks: what to describe.
        site_of: tells where a tensor was made; empty where that was not recorded.
    """
    readers = StorageReaders()
    groups: dict[tuple[Any, ...], tuple[int, int]] = {}
    for block in blocks:
        value = max((living.value for living in block.living), key=lambda value: _rank(readers, value))
        key = (*_words(readers, value), site_of(block.identity, value))
        count, size = groups.get(key, (0, 0))
        groups[key] = (count + 1, size + block.size_bytes)
    device = blocks[0].living[0].storage.account.device if blocks else ""
    contents = [
        Content(type_name=name, dtype=dtype, shape=shape, device=device, count=count, held_bytes=size, made_at=made_at)
        for (name, dtype, shape, made_at), (count, size) in groups.items()
    ]
    return sorted(contents, key=lambda content: -content.held_bytes)


def _rank(readers: StorageReaders, value: Any) -> tuple[bool, int]:
    """The one that shows most of a block stands for it; a bare storage has no shape."""
    _, dtype, shape = _words(readers, value)
    elements = 1
    for length in shape:
        elements *= length
    return bool(dtype), elements


def _words(readers: StorageReaders, value: Any) -> tuple[str, str, tuple[int, ...]]:
    kind = type(value)
    name = str(kind.__name__)
    base = readers.base_of(kind)
    try:
        with readers.undisturbed():
            # By the framework's own descriptors: a subclass may have put anything in their place.
            dtype = base.dtype.__get__(value)
            shape = tuple(int(length) for length in base.shape.__get__(value))
            return name, str(getattr(dtype, "name", dtype)).removeprefix("torch."), shape
    except Exception:  # a bare storage has neither
        return name, "", ()
