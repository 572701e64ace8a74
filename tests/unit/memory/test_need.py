"""Whether cards have what a test needs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_gpuclean.memory.cards import Card
from pytest_gpuclean.memory.need import Need, lack_of
from pytest_gpuclean.units import GiB, MiB


def card(index, total_gib, free_gib=None, **more):
    total = None if total_gib is None else round(total_gib * GiB)
    free = total if free_gib is None else round(free_gib * GiB)
    return Card(index=index, device=f"cuda:{index}", total_bytes=total, free_bytes=free, **more)


def need(count=1, memory_gib=None, free_gib=None):
    def size(gib):
        return None if gib is None else round(gib * GiB)

    return Need(count=count, memory_bytes=size(memory_gib), free_bytes=size(free_gib))


@pytest.mark.parametrize(
    ("needed", "cards", "reason"),
    [
        (need(), [card(0, 24)], None),
        (need(), [], "needs a GPU: none is visible"),
        (need(2), [card(0, 24)], "needs 2 GPUs: 1 is visible (cuda:0 24.0 GiB)"),
        (need(3), [card(0, 24), card(1, 12)], "needs 3 GPUs: 2 are visible (cuda:0 24.0 GiB, cuda:1 12.0 GiB)"),
        (need(2, 12), [card(0, 24), card(1, 12)], None),
        (
            need(2, 20),
            [card(0, 24), card(1, 12)],
            "needs 2 GPUs with 20.0 GiB: 1 of 2 has that (cuda:0 24.0 GiB, cuda:1 12.0 GiB)",
        ),
        (need(1, 20), [card(0, 12), card(1, 24)], None),
        (need(1, 80), [card(0, 24)], "needs a GPU with 80.0 GiB: none of 1 has that (cuda:0 24.0 GiB)"),
        (need(1, None, 8), [card(0, 24, 8)], None),
        (
            need(1, None, 8),
            [card(0, 24, 3.5)],
            "needs a GPU with 8.0 GiB free: none of 1 has that (cuda:0 3.5 GiB free of 24.0 GiB)",
        ),
        (
            need(2, 20, 8),
            [card(0, 24, 9), card(1, 24, 1)],
            (
                "needs 2 GPUs with 20.0 GiB, of that 8.0 GiB free: 1 of 2 has that "
                "(cuda:0 9.0 GiB free of 24.0 GiB, cuda:1 1.0 GiB free of 24.0 GiB)"
            ),
        ),
        (
            need(1, 4),
            [card(0, None, trouble=("GPU is lost",))],
            "needs a GPU with 4.0 GiB: none of 1 has that (cuda:0 cannot be measured: GPU is lost)",
        ),
        (need(1, 4), [card(0, None), card(1, 8)], None),
        (need(1), [card(0, None)], None),
        (
            need(1, None, 4),
            [Card(index=0, device="cuda:0", total_bytes=8 * GiB)],
            "needs a GPU with 4.0 GiB free: none of 1 has that (cuda:0 cannot be measured: the driver does not say)",
        ),
    ],
)
def test_what_is_lacking_is_said_with_the_figures(needed, cards, reason):
    lack = lack_of(needed, cards, {})
    assert (lack and lack.reason) == reason


def test_a_card_that_falls_short_by_less_than_the_last_digit_is_told_exactly():
    lack = lack_of(need(1, 24), [card(0, 24564 / 1024)], {})
    assert lack.reason == "needs a GPU with 24.0 GiB: none of 1 has that (cuda:0 24564 MiB)"


def test_why_there_are_fewer_cards_is_said():
    lack = lack_of(need(2), [card(0, 8)], {}, hint="CUDA_VISIBLE_DEVICES='1'")
    assert lack.reason == "needs 2 GPUs: 1 is visible (cuda:0 8.0 GiB); CUDA_VISIBLE_DEVICES='1'"


@pytest.mark.parametrize(
    ("needed", "cards", "own_gib", "may_come"),
    [
        (need(1, None, 8), [card(0, 24, 1)], 0, True),
        (need(1, None, 8), [card(0, 24, 1)], 16, True),
        (need(1, None, 8), [card(0, 24, 1)], 16.1, False),  # what is our own does not come back by waiting
        (need(1, None, 30), [card(0, 24, 1)], 0, False),  # more than the card has
        (need(2, None, 8), [card(0, 24, 1), card(1, 24, 24)], 0, True),
        (need(2, None, 8), [card(0, 24, 1), card(1, 4, 4)], 0, False),
        (need(1, 24, 8), [card(0, 12, 1)], 0, False),
        (need(2), [card(0, 24)], 0, False),
        (need(1, None, 4), [Card(index=0, device="cuda:0", total_bytes=8 * GiB)], 0, False),
    ],
)
def test_waiting_is_for_what_others_can_give_back(needed, cards, own_gib, may_come):
    assert lack_of(needed, cards, {"cuda:0": round(own_gib * GiB)}).may_come is may_come


def test_the_cards_that_are_short_of_free_memory_are_named():
    cards = [card(0, 24, 1), card(1, 24, 24), card(2, 4, 4)]
    assert lack_of(need(2, None, 8), cards, {}).short == (cards[0],)


sizes = st.integers(0, 64).map(lambda number: number * 512 * MiB)


@given(
    count=st.integers(1, 4),
    memory=st.none() | sizes,
    free=st.none() | sizes,
    figures=st.lists(st.tuples(sizes, st.floats(0, 1)), max_size=5),
    own=sizes,
)
def test_it_lacks_exactly_where_too_few_cards_fulfil_all(count, memory, free, figures, own):
    cards = [
        Card(index=i, device=f"cuda:{i}", total_bytes=total, free_bytes=int(total * share))
        for i, (total, share) in enumerate(figures)
    ]
    fulfil = [c for c in cards if c.total_bytes >= (memory or 0) and c.free_bytes >= (free or 0)]
    lack = lack_of(Need(count=count, memory_bytes=memory, free_bytes=free), cards, {"cuda:0": own})
    assert (lack is None) == (len(fulfil) >= count)
    if lack is not None and lack.may_come:
        could = [c for c in cards if c.total_bytes - (own if c.index == 0 else 0) >= (free or 0)]
        assert len([c for c in could if c.total_bytes >= (memory or 0)]) >= count or fulfil
