"""Kept graphs in one line, and whether they are what leaked."""

from dataclasses import dataclass

import pytest

from pytest_gpuclean.leaks.autograd import CAUSE, describe, note_graphs
from pytest_gpuclean.units import MiB


@dataclass(frozen=True)
class Block:
    name: str
    size_bytes: int


@dataclass(frozen=True)
class FakeGraph:
    saved: frozenset[Block] = frozenset()
    heads: int = 1
    functions: int = 9
    first: str = "AddmmBackward0"
    last: str = "MseLossBackward0"
    is_freed: bool = False
    unread: int = 0
    is_cut: bool = False


def blocks(*names, size=25 * MiB):
    return frozenset(Block(name, size) for name in names)


def test_many_graphs_are_one_line():
    graphs = [FakeGraph(blocks(str(index))) for index in range(12)]
    assert describe(graphs) == (
        "12 kept graphs of 9 functions (AddmmBackward0 ... MseLossBackward0) hold 300.0 MiB of saved tensors"
    )


def test_one_graph_of_one_function():
    graph = FakeGraph(blocks("a"), functions=1, first="ExpBackward0", last="ExpBackward0")
    assert describe([graph]) == "1 kept graph of 1 function (ExpBackward0) holds 25.0 MiB of saved tensors"


def test_a_block_that_two_graphs_have_saved_counts_once():
    assert "hold 50.0 MiB" in describe([FakeGraph(blocks("a", "batch")), FakeGraph(blocks("batch"))])


def test_graphs_of_different_lengths_go_by_the_names_of_the_largest():
    short = FakeGraph(blocks("a"), functions=3, first="MulBackward0", last="SumBackward0")
    long = FakeGraph(blocks("b", "c"), functions=1200)
    assert describe([short, long]).startswith("2 kept graphs of 3 to 1,200 functions (AddmmBackward0 ... MseLoss")


@pytest.mark.parametrize(
    ("graph", "said"),
    [
        (FakeGraph(blocks("a"), is_cut=True), "of over 9 functions"),
        (FakeGraph(blocks("a"), is_cut=True), "holds at least 25.0 MiB"),
        (FakeGraph(is_freed=True), "freed by backward: nothing saved is left"),
        (FakeGraph(blocks("a"), unread=4), "25.0 MiB of saved tensors, and 4 more that this torch does not show"),
    ],
)
def test_what_is_not_known_and_what_is_gone_is_said(graph, said):
    assert said in describe([graph])


def test_no_graph_is_no_line():
    assert describe([]) == ""


@pytest.mark.parametrize(
    ("leaked_bytes", "least_share", "cause"),
    [
        (100 * MiB, 0.25, CAUSE),
        (101 * MiB, 0.25, ""),
        (101 * MiB, 0.2, CAUSE),
        (1, 1.0, CAUSE),
        (0, 0.25, CAUSE),
    ],
)
def test_graphs_are_the_cause_from_a_share_of_the_leak_on(leaked_bytes, least_share, cause):
    note = note_graphs([FakeGraph(blocks("a"))], leaked_bytes, least_share=least_share)
    assert (note.cause, note.saved_bytes) == (cause, 25 * MiB)
    assert note.text == describe([FakeGraph(blocks("a"))])


def test_graphs_that_hold_nothing_are_not_worth_a_line():
    assert note_graphs([FakeGraph(), FakeGraph(is_freed=True)], MiB) is None
    assert note_graphs([], MiB) is None


def test_graphs_that_hold_nothing_do_not_count_beside_one_that_does():
    assert note_graphs([FakeGraph(is_freed=True), FakeGraph(blocks("a"))], MiB).text.startswith("1 kept graph of")


def test_a_graph_that_cannot_be_read_is_told_and_is_no_cause():
    note = note_graphs([FakeGraph(unread=3)], MiB)
    assert (note.cause, note.saved_bytes) == ("", 0)
    assert "0 B of saved tensors, and 3 more that this torch does not show" in note.text


def test_the_graphs_of_real_losses_are_described():
    torch = pytest.importorskip("torch")
    from pytest_gpuclean.memory.graphs import graphs_of

    start = torch.ones(MiB // 4, requires_grad=True)
    losses = [start.exp().sin().sum() for _ in range(3)]
    note = note_graphs(graphs_of(losses), 3 * MiB)
    assert note.text == "3 kept graphs of 3 functions (ExpBackward0 ... SumBackward0) hold 3.0 MiB of saved tensors"
    assert note.cause == CAUSE
