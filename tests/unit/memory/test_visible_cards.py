"""Where the figures of the cards come from, without anything being initialised."""

import sys

import pytest

from pytest_gpuclean.memory.cards import Card
from pytest_gpuclean.memory.cuda_visible import Visible
from pytest_gpuclean.memory.visible_cards import Seen, VisibleCards
from pytest_gpuclean.model import Unavailable
from pytest_gpuclean.units import GiB, MiB

CARD = Card(index=3, device="cuda:0", total_bytes=24 * GiB, free_bytes=20 * GiB)


class Driver:
    """Says what it was made to say."""

    def __init__(self, answer):
        self.answer = answer

    def visibility(self):
        return self.answer


@pytest.fixture
def _no_framework(monkeypatch):
    """An earlier test in this process may have initialised an accelerator."""
    monkeypatch.delitem(sys.modules, "torch", raising=False)


@pytest.mark.usefixtures("_no_framework")
@pytest.mark.parametrize(
    ("environ", "problem", "hint"),
    [
        ({}, "", ""),
        ({"CUDA_VISIBLE_DEVICES": "3"}, "", "CUDA_VISIBLE_DEVICES='3'"),
        ({"CUDA_VISIBLE_DEVICES": "3,9"}, "'9' is no card here", "'9' is no card here"),
    ],
)
def test_the_driver_says_what_is_visible_and_why_there_is_no_more(environ, problem, hint):
    cards = VisibleCards(Driver(Visible(cards=(CARD,), problem=problem)), environ)
    assert cards.read() == Seen((CARD,), hint)


@pytest.mark.usefixtures("_no_framework")
def test_without_a_driver_and_without_an_initialised_device_nothing_is_known():
    found = VisibleCards(Driver(Unavailable("nvml", "no driver")), {}).read()
    assert found == Unavailable("nvml", "no driver, and no framework has initialised a device yet")


def test_an_accelerator_that_nvml_does_not_know_is_asked_once_it_is_initialised(simgpu):
    import torch

    simgpu.control.reset()
    simgpu.control.hold(1, 3 * GiB)
    torch.empty(4 * MiB, dtype=torch.uint8, device="simgpu:0")
    seen = VisibleCards(Driver(Visible(cards=(CARD,))), {}).read()
    assert [card.device for card in seen.cards] == ["simgpu:0", "simgpu:1"]
    assert [card.total_bytes for card in seen.cards] == [8 * GiB, 8 * GiB]
    assert seen.cards[1].free_bytes <= 5 * GiB
    simgpu.control.reset()


def test_a_lost_device_is_told_beside_the_others(simgpu):
    simgpu.module.init()
    simgpu.control.lose(1)
    try:
        seen = VisibleCards(Driver(Unavailable("nvml", "no driver")), {}).read()
    finally:
        simgpu.control.revive(1)
    assert seen.cards[1].total_bytes is None
    assert "AcceleratorError" in seen.cards[1].trouble[0]
    assert seen.cards[0].total_bytes == 8 * GiB
