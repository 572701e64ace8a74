"""CUDA_VISIBLE_DEVICES means here what it means to CUDA."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_gpuclean.memory.cards import Card
from pytest_gpuclean.memory.cuda_visible import Visible, read_visible

A, B, C = (Card(index=i, uuid=uuid, name="H100") for i, uuid in enumerate(("GPU-aa11", "GPU-aa22", "GPU-bb33")))
CARDS = (A, B, C)
CUT = Card(index=1, uuid="GPU-cut", name="H100", is_partitioned=True)
ONE, TWO = (
    Card(index=1, slot=n, uuid=uuid, parent_uuid="GPU-cut", legacy_uuid=f"MIG-GPU-cut/{n}/0", name="slice")
    for n, uuid in enumerate(("MIG-11", "MIG-22"), 1)
)
MIXED = (A, CUT, ONE, TWO)


def seen(text, cards=CARDS, **more):
    return [card.uuid for card in read_visible(text, cards, **more).cards]


def problem(text, cards=CARDS):
    return read_visible(text, cards).problem


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, [A, B, C]),
        ("0,1,2", [A, B, C]),
        ("2,0", [C, A]),
        (" 1 , 0 ", [B, A]),
        ("+1", [B]),
        ("01", [B]),
        ("1gpu,2ampere", [B, C]),  # as strtol reads it
        ("", []),
        (" ", []),
        ("-1", []),
        ("0,-1,2", [A]),
        ("0,7,1", [A]),
        ("0,,1", [A]),
        ("7", []),
        ("none", []),
        ("all", []),
        ("0,1,0", []),  # twice: none at all
        ("0,1,00", []),
        ("0,5,0", [A]),  # the list has ended before the second 0
        ("GPU-bb", [C]),
        ("GPU-bb33,GPU-aa1", [C, A]),
        ("GPU-aa", []),
        ("GPU-bb33,GPU-aa", [C]),
        ("GPU-cc,GPU-bb33", []),
        ("GPU-bb33,GPU-bb", []),
        ("GPU-bb33,0", [C]),
        ("0,GPU-bb33", [A]),
        ("gpu-bb33", []),
        ("MIG-11", []),
        ("0;1", [A]),
        ("١", []),
    ],
)
def test_the_cards_that_cuda_shows(text, expected):
    visible = read_visible(text, CARDS)
    assert [card.uuid for card in visible.cards] == [card.uuid for card in expected]
    assert [card.device for card in visible.cards] == [f"cuda:{number}" for number in range(len(expected))]


@pytest.mark.parametrize("text", [None, "", "-1", "0", "2,0", "0,-1", "GPU-bb", "GPU-bb33,GPU-aa11"])
def test_a_variable_that_is_right_is_no_problem(text):
    assert problem(text) == ""


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("0,7,1", "CUDA_VISIBLE_DEVICES='0,7,1': '7' is no card here: there are 3, and hides '1' after it"),
        ("none", "CUDA_VISIBLE_DEVICES='none': 'none' is no number and no UUID"),
        ("0,,1", "CUDA_VISIBLE_DEVICES='0,,1': '' is an empty entry, and hides '1' after it"),
        ("0,1,0", "CUDA_VISIBLE_DEVICES='0,1,0': '0' names a card twice, and so CUDA sees none"),
        ("GPU-aa", "CUDA_VISIBLE_DEVICES='GPU-aa': 'GPU-aa' is the beginning of 2 UUIDs"),
        ("GPU-cc", "CUDA_VISIBLE_DEVICES='GPU-cc': 'GPU-cc' is no UUID of a card here"),
        ("0,GPU-bb33", "CUDA_VISIBLE_DEVICES='0,GPU-bb33': 'GPU-bb33' is not of the kind of the first entry"),
        ("-2,0", "CUDA_VISIBLE_DEVICES='-2,0': '-2' ends the list, and hides '0' after it"),
    ],
)
def test_nonsense_is_named(text, sentence):
    assert problem(text) == sentence


def test_a_machine_without_cards_has_none_to_show():
    assert seen(None, ()) == []
    assert problem("0", ()) == "CUDA_VISIBLE_DEVICES='0': '0' is no card here: there is none"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("MIG-22", [TWO]),
        ("MIG-2", [TWO]),
        ("MIG-GPU-cut/1/0", [ONE]),
        ("MIG-22,MIG-11", [TWO]),  # one instance a process
        ("MIG-", []),
        ("1", [ONE]),
        ("GPU-cut", [ONE]),
        ("0", [A]),
        ("0,1", [ONE]),  # and no whole card beside it
        (None, [ONE]),
    ],
)
def test_instances_of_a_card_that_is_cut(text, expected):
    assert seen(text, MIXED) == [card.uuid for card in expected]


def test_a_card_that_is_cut_and_has_no_instance_cannot_be_used():
    assert seen("0,1", (A, CUT)) == ["GPU-aa11"]


def test_cuda_counts_without_the_cards_that_one_may_not_use():
    barred = Card(index=0, is_barred=True)
    assert seen("0", (barred, B, C)) == ["GPU-aa22"]
    assert seen(None, (barred, B, C)) == ["GPU-aa22", "GPU-bb33"]


@pytest.mark.parametrize(
    ("text", "order", "is_certain"),
    [
        (None, None, False),
        ("0", None, False),
        ("0", "FASTEST_FIRST", False),
        ("0", "nonsense", False),
        ("0", "PCI_BUS_ID", True),
        ("GPU-other", None, True),
    ],
)
def test_where_the_cards_differ_cudas_own_order_is_noted(text, order, is_certain):
    other = Card(index=1, uuid="GPU-other", name="RTX A400")
    visible = read_visible(text, (A, other), order)
    assert ("CUDA_DEVICE_ORDER=PCI_BUS_ID" in visible.note) is not is_certain
    assert read_visible(text, CARDS, order).note == ""


ENTRIES = st.one_of(
    st.integers(-3, 5).map(str),
    st.sampled_from(["GPU-aa11", "GPU-aa", "GPU-bb", "MIG-1", "", " ", "x", "0x1"]),
    st.text(max_size=4),
)


@given(st.lists(ENTRIES, max_size=5).map(",".join))
def test_whatever_it_is_there_is_an_answer_and_no_card_is_there_twice(text):
    visible = read_visible(text, CARDS)
    assert isinstance(visible, Visible)
    uuids = [card.uuid for card in visible.cards]
    assert len(set(uuids)) == len(uuids)
    assert [card.device for card in visible.cards] == [f"cuda:{number}" for number in range(len(uuids))]
