"""NVIDIA's cards as the driver sees them: what they have, what is in use, and by which processes.

It informs: what others do on a card never judges a test. A figure that cannot be had is unknown, never 0.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from pytest_gpuclean.memory.cards import Card, CardUse, CardUser, merged
from pytest_gpuclean.memory.cuda_visible import ORDER_VARIABLE, VARIABLE, Visible, read_visible
from pytest_gpuclean.memory.interface import first_line, whole
from pytest_gpuclean.memory.nvml_calls import (
    ARGUMENT_VERSION_MISMATCH,
    FUNCTION_NOT_FOUND,
    NO_PERMISSION,
    NOT_FOUND,
    NOT_SUPPORTED,
    SOURCE,
    Call,
    NvmlCalls,
    NvmlError,
)
from pytest_gpuclean.model import Unavailable

_MEMORY_V2 = 0x02000028
"""nvmlMemory_v2: its `used` leaves out what the driver keeps for itself, as nvidia-smi's does."""


class Nvml:
    """The driver's view of this machine, read when somebody asks for it.

    Args:
        calls: the way to NVML; one of its own by default.
        environ: where CUDA's variables are read.
    """

    source = SOURCE

    def __init__(self, calls: NvmlCalls | None = None, environ: Mapping[str, str] | None = None) -> None:
        self._calls = calls or NvmlCalls()
        self._environ = os.environ if environ is None else environ

    @property
    def given_up(self) -> Unavailable | None:
        """Why NVML is not asked any more in this run; None as long as it may be."""
        return self._calls.given_up

    @property
    def is_absent(self) -> bool:
        """Whether it turned out that there is no driver here, or no nvidia-ml-py: nothing that one has to be told."""
        return self._calls.is_absent

    def devices(self) -> tuple[Card, ...] | Unavailable:
        """Read every card of the machine, each followed by its MIG instances, in the order of the PCI bus."""
        return self._calls.ask(lambda call: tuple(card for card, _ in _cards(call)))

    def visible(self) -> tuple[Card, ...] | Unavailable:
        """Read the cards that CUDA shows to this process, in its order, named `cuda:0` and so on."""
        found = self.visibility()
        return found if isinstance(found, Unavailable) else found.cards

    def visibility(self) -> Visible | Unavailable:
        """Read the same, with what is wrong with CUDA_VISIBLE_DEVICES."""
        cards = self.devices()
        return cards if isinstance(cards, Unavailable) else self._visible_of(cards)

    def users(self, card: Card) -> tuple[CardUser, ...] | Unavailable:
        """Read the processes that use a card, one entry each.

        Args:
            card: as `devices` or `visible` gave it.
        """
        return self._calls.ask(lambda call: _users(call, _handle(call, card)))

    def use(self) -> tuple[CardUse, ...] | Unavailable:
        """Read every card with its users, in one go; a card that CUDA shows here bears its `cuda:N`."""
        found = self._calls.ask(lambda call: [(card, _users_or_why(call, handle)) for card, handle in _cards(call)])
        if isinstance(found, Unavailable):
            return found
        shown = {card.key: card for card in self._visible_of([card for card, _ in found]).cards}
        return tuple(CardUse(card=shown.get(card.key, card), users=users) for card, users in found)

    def use_of(self, cards: Iterable[Card]) -> tuple[CardUse, ...] | Unavailable:
        """Read a few cards again: what is in use on each, and by whom.

        Args:
            cards: as they were read before.
        """
        known = tuple(cards)
        return self._calls.ask(lambda call: tuple(_use_again(call, card) for card in known))

    def _visible_of(self, cards: tuple[Card, ...] | list[Card]) -> Visible:
        return read_visible(self._environ.get(VARIABLE), cards, self._environ.get(ORDER_VARIABLE))


# -- one question, in the thread that may ask ----------------------------------------------------------------------


def _cards(call: Call) -> Iterator[tuple[Card, Any]]:
    """Give each card or instance, and its handle, or the error where that is refused."""
    for index in range(whole(call("nvmlDeviceGetCount"))):
        try:
            handle = call("nvmlDeviceGetHandleByIndex", index)
        except NvmlError as error:
            yield Card(index=index, trouble=(str(error),), is_barred=error.code == NO_PERMISSION), error
            continue
        trouble: list[str] = []
        card = _read_card(call, handle, trouble, index=index, is_partitioned=_has_mig(call, handle, trouble))
        instances = list(_instances(call, handle, card, trouble)) if card.is_partitioned else []
        yield (replace(card, trouble=tuple(trouble)) if trouble else card), handle
        yield from instances


def _read_card(call: Call, handle: Any, trouble: list[str], **more: Any) -> Card:
    """Read what there is of a card or an instance; a call that fails costs its own figure alone."""
    total, used, free = _attempt(trouble, lambda: _memory(call, handle)) or (None, None, None)
    return Card(
        uuid=_attempt(trouble, lambda: _text(call("nvmlDeviceGetUUID", handle))) or "",
        name=_attempt(trouble, lambda: _text(call("nvmlDeviceGetName", handle))) or "",
        total_bytes=total,
        used_bytes=used,
        free_bytes=free,
        **more,
    )


def _attempt(trouble: list[str], does: Callable[[], Any]) -> Any:
    try:
        return does()
    except Exception as error:  # also figures that are no numbers
        trouble.append(str(error))
        return None


def _memory(call: Call, handle: Any) -> tuple[int, int, int]:
    try:
        found = call("nvmlDeviceGetMemoryInfo", handle, version=_MEMORY_V2)
    except NvmlError as error:
        is_too_old = error.code in (FUNCTION_NOT_FOUND, ARGUMENT_VERSION_MISMATCH) or "TypeError" in str(error)
        if not is_too_old:
            raise
        found = call("nvmlDeviceGetMemoryInfo", handle)
    return whole(found.total), whole(found.used), whole(found.free)


def _text(value: str | bytes) -> str:
    text = value.decode(errors="replace") if isinstance(value, bytes) else value  # bytes before release 11.5
    if type(text) is not str:
        raise TypeError(f"a name is of type {type(text).__name__}, not text")
    return text


def _has_mig(call: Call, handle: Any, trouble: list[str]) -> bool:
    try:
        current, _ = call("nvmlDeviceGetMigMode", handle)
    except NvmlError as error:
        if error.code not in (NOT_SUPPORTED, FUNCTION_NOT_FOUND):  # of most cards, and of drivers before 450
            trouble.append(str(error))
        return False
    return bool(current == 1)


def _instances(call: Call, handle: Any, card: Card, trouble: list[str]) -> Iterator[tuple[Card, Any]]:
    slots = _attempt(trouble, lambda: whole(call("nvmlDeviceGetMaxMigDeviceCount", handle))) or 0
    for slot in range(slots):
        try:
            instance = call("nvmlDeviceGetMigDeviceHandleByIndex", handle, slot)
        except NvmlError as error:
            if error.code != NOT_FOUND:  # an empty slot
                trouble.append(str(error))
            continue
        own_trouble: list[str] = []
        found = _read_card(call, instance, own_trouble, index=card.index, slot=slot, parent_uuid=card.uuid)
        ids = [
            _attempt([], lambda name=name: whole(call(name, instance)))  # type: ignore[misc]  # noqa: B023
            for name in ("nvmlDeviceGetGpuInstanceId", "nvmlDeviceGetComputeInstanceId")
        ]
        legacy = "" if None in ids else f"MIG-{card.uuid}/{ids[0]}/{ids[1]}"
        yield replace(found, legacy_uuid=legacy, trouble=tuple(own_trouble)), instance


def _use_again(call: Call, card: Card) -> CardUse:
    """Read memory and users of a card that is known."""
    try:
        handle = _handle(call, card)
    except NvmlError as error:
        gone = replace(card, used_bytes=None, free_bytes=None, trouble=(str(error),))
        return CardUse(card=gone, users=Unavailable(SOURCE, str(error)))
    trouble: list[str] = []
    total, used, free = _attempt(trouble, lambda: _memory(call, handle)) or (card.total_bytes, None, None)
    known = replace(card, total_bytes=total, used_bytes=used, free_bytes=free, trouble=tuple(trouble))
    return CardUse(card=known, users=_users_or_why(call, handle))


def _handle(call: Call, card: Card) -> Any:
    handle = call("nvmlDeviceGetHandleByIndex", card.index)
    if card.slot is not None:
        handle = call("nvmlDeviceGetMigDeviceHandleByIndex", handle, card.slot)
    if card.uuid and _text(call("nvmlDeviceGetUUID", handle)) != card.uuid:
        raise NvmlError(f"{card.label} is not there any more: another one has its number")
    return handle


def _users_or_why(call: Call, handle: Any) -> tuple[CardUser, ...] | Unavailable:
    try:
        if isinstance(handle, NvmlError):
            raise handle
        return _users(call, handle)
    except Exception as error:
        return Unavailable(SOURCE, str(error) if isinstance(error, NvmlError) else first_line(error))


def _users(call: Call, handle: Any) -> tuple[CardUser, ...]:
    others = (_processes(call, kind, handle, may_lack=True) for kind in ("MPSCompute", "Graphics"))
    return tuple(merged(_processes(call, "Compute", handle), *others))


def _call_either(call: Call, names: tuple[str, str], handle: Any) -> Any:
    try:
        return call(names[0], handle)
    except NvmlError as error:
        if error.code != FUNCTION_NOT_FOUND:
            raise
        first = error
    try:
        return call(names[1], handle)
    except NvmlError as error:  # some releases of nvidia-ml-py do not have it: that says nothing of the driver
        raise (first if error.code == FUNCTION_NOT_FOUND else error) from None


def _processes(call: Call, kind: str, handle: Any, *, may_lack: bool = False) -> list[tuple[int, int | None]]:
    """List processes and their bytes.

    Args:
        call: the way to NVML.
        kind: as the name of the function has it.
        handle: of the card or instance.
        may_lack: whether the driver may have no such list: no graphics in MIG, no MPS before 510.
    """
    name = f"nvmlDeviceGet{kind}RunningProcesses"
    try:
        found = _call_either(call, (name, f"{name}_v2"), handle)  # the second: drivers before 510
    except NvmlError as error:
        if may_lack and error.code in (NOT_SUPPORTED, FUNCTION_NOT_FOUND):
            return []
        raise
    return [(whole(entry.pid), None if entry.usedGpuMemory is None else whole(entry.usedGpuMemory)) for entry in found]
