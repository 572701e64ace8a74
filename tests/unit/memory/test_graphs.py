"""Each graph once, each storage once, and what lives anyway is not the graph's."""

import gc

import pytest

from pytest_gpuclean.memory.census import host_storages
from pytest_gpuclean.memory.graph_limits import LookLimit
from pytest_gpuclean.memory.graphs import graphs_of
from pytest_gpuclean.units import MiB
from unit.fakes import remove

torch = pytest.importorskip("torch")
nn = torch.nn

SIZE = 4 * 1024
"""Of a tensor of 1024 numbers."""


def graph_of(tensor):
    return next(iter(graphs_of([tensor])), None)


def leaf(**options):
    return torch.ones(1024, requires_grad=True, **options)


def test_a_tensor_without_a_graph_and_what_is_none_keep_none():
    assert [graph_of(value) for value in (torch.ones(3), leaf(), "text", None, object())] == [None] * 5


def test_functions_are_counted_without_leaves_and_named_in_the_order_of_the_forward_pass():
    model = nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 1))
    graph = graph_of(nn.functional.mse_loss(model(torch.ones(2, 8)), torch.ones(2, 1)))
    # linear, relu, linear and the loss; and the transposed weight of either linear layer, which saves nothing
    assert (graph.functions, graph.first, graph.last) == (6, "AddmmBackward0", "MseLossBackward0")


def test_saved_bytes_are_those_that_only_the_graph_keeps():
    start = leaf()
    middle = start.exp()
    graph = graph_of(middle.sin().sum())
    assert graph.saved_bytes == SIZE  # exp's result; sin has saved the same one
    kept = graph_of(middle)
    assert kept.saved_bytes == 0  # it is what is kept, graph or not


def test_parameters_are_not_what_a_graph_has_saved_and_a_batch_is():
    model = nn.Linear(1024, 1024, bias=False)
    batch = torch.ones(2, 1024)
    assert graph_of(model(batch.clone())).saved_bytes == 2 * SIZE
    assert graph_of(model(leaf())).saved_bytes == 0


def test_two_losses_of_one_pass_are_one_graph_with_two_heads():
    trunk = leaf().exp()
    losses = [trunk.sum(), trunk.sin().mean(), trunk.prod()]
    (graph,) = graphs_of(losses)
    assert (graph.heads, graph.saved_bytes) == (3, SIZE)


def test_graphs_that_a_later_tensor_joins_are_one():
    first, second = leaf().exp(), leaf().sin()
    (graph,) = graphs_of([first.sum(), second.sum(), first @ second])
    assert (graph.heads, graph.functions, graph.last) == (3, 5, "DotBackward0")


def test_graphs_that_share_no_more_than_parameters_are_two_the_larger_first():
    weight = leaf()
    small, large = (weight * torch.ones(1)).sum(), (weight.exp() * weight.sin()).sum()
    assert [(graph.heads, graph.saved_bytes) for graph in graphs_of([small, large])] == [(1, 2 * SIZE), (1, 4)]


def test_views_of_one_block_count_once():
    base = torch.ones(2, 1024)
    start = leaf()
    assert graph_of((start * base[0]).sum() + (start * base[1]).sum()).saved_bytes == 2 * SIZE


def test_a_graph_that_a_backward_pass_has_freed_holds_nothing():
    loss = leaf().exp().sin().sum()
    assert not graph_of(loss).is_freed
    loss.backward()
    graph = graph_of(loss)
    assert (graph.is_freed, graph.saved_bytes, graph.functions) == (True, 0, 3)


def test_a_graph_that_has_saved_nothing_is_not_freed():
    assert not graph_of(leaf().sum()).is_freed
    assert not graph_of((leaf() * 2.0).sum()).is_freed
    start = leaf()
    graph = graph_of(start * start.detach())  # has an empty slot, and one with what the leaf has anyway
    assert (graph.is_freed, graph.saved_bytes) == (False, 0)


def test_a_retained_graph_is_not_freed():
    loss = leaf().exp().sum()
    loss.backward(retain_graph=True)
    assert (graph_of(loss).is_freed, graph_of(loss).saved_bytes) == (False, SIZE)


class Double(torch.autograd.Function):
    @staticmethod
    def forward(ctx, value):
        ctx.save_for_backward(value.clone())
        ctx.also = {"scale": [torch.ones(1024)]}
        ctx.model = MODEL
        return value * 2

    @staticmethod
    def backward(ctx, gradient):
        return gradient * 2


MODEL = nn.Linear(1024, 1024)


def test_a_function_of_the_users_counts_with_what_is_on_its_context():
    graph = graph_of(Double.apply(leaf()))
    assert (graph.first, graph.last) == ("Double", "Double")
    assert graph.saved_bytes == 2 * SIZE  # and not the model


def test_a_function_of_the_users_can_be_freed():
    loss = Double.apply(leaf()).sum()
    loss.backward()
    graph = graph_of(loss)
    assert graph.saved_bytes == SIZE  # what is on its context stays
    assert not graph.is_freed


def test_a_graph_of_gradients_counts():
    start = leaf()
    (gradient,) = torch.autograd.grad((start**3).sum(), start, create_graph=True)
    graph = graph_of(gradient)
    assert "PowBackward0" in (graph.first, graph.last) or graph.functions > 2
    assert graph.saved_bytes > 0


def test_tensors_that_a_hook_has_packed_count_and_it_does_not_run():
    ran = []

    def unpack(packed):
        ran.append(1)
        return packed["tensor"][0]

    class Box:
        def __init__(self, tensor):
            self.inside = {"tensor": (tensor,)}

    for pack in (lambda t: {"tensor": (t.clone(),)}, lambda t: Box(t.clone())):
        with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
            loss = leaf().exp().sum()
        assert graph_of(loss).saved_bytes == SIZE
    assert ran == []


def test_a_checkpoint_holds_nothing_and_computes_nothing():
    ran = []

    def forward(value):
        ran.append(1)
        return value.exp().sin().sum()

    loss = torch.utils.checkpoint.checkpoint(forward, leaf(), use_reentrant=False)
    assert graph_of(loss).saved_bytes < SIZE
    assert ran == [1]


def test_what_is_saved_in_other_layouts_counts():
    with torch.sparse.check_sparse_tensor_invariants():
        index = torch.arange(1024).repeat(2, 1)
        matrix = torch.sparse_coo_tensor(index, torch.ones(1024), (1024, 1024))
    loss = torch.sparse.mm(matrix, torch.ones(1024, 2, requires_grad=True)).sum()
    assert graph_of(loss).saved_bytes == 1024 * (8 + 8 + 4)
    ragged = torch.nested.nested_tensor([torch.ones(512), torch.ones(512)], layout=torch.jagged, requires_grad=True)
    assert graph_of(ragged.exp()) is not None
    assert graph_of(ragged.exp().sin()).saved_bytes >= SIZE


def test_a_frozen_function_of_torch_compile_or_cpp_is_named_somehow():
    class CppFunction:
        next_functions = ()

        def name(self):
            return "torch::autograd::CppNode<\x1b[31mMine>" + "x" * 500

    from pytest_gpuclean.memory.graph_nodes import NodeReader

    name = NodeReader(torch).name(CppFunction())
    assert name.startswith(r"torch::autograd::CppNode<\x1b[31mMine>x")
    assert len(name) == 60


def test_device_blocks_count_as_the_allocator_rounds_them(simgpu):
    start = torch.ones(100, device="simgpu:0", requires_grad=True)
    (exact,), (rounded,) = graphs_of([start.exp().sum()]), graphs_of([start.exp().sum()], rounds=True)
    assert (exact.saved_bytes, rounded.saved_bytes) == (400, 512)
    assert {storage.account.device for storage in exact.saved} == {"simgpu:0"}


def test_without_torch_there_is_no_graph(monkeypatch):
    loss = leaf().exp().sum()
    remove(monkeypatch, "torch")
    assert graphs_of([loss]) == []


@pytest.mark.parametrize("limits", [{"seconds": 0.001, "most_functions": 4_000}, {"most_functions": 1_000}])
def test_a_very_long_graph_is_looked_at_to_its_end_or_said_to_be_cut(limits):
    value = torch.ones(4, requires_grad=True)
    for _ in range(3_000):
        value = torch.sin(value)
    part = graphs_of([value], **limits)[0]
    assert part.is_cut
    assert 0 < part.functions <= 1_001 + 2_000 * ("seconds" in limits)
    whole = graphs_of([value], seconds=60, most_functions=4_000)[0]
    assert (whole.functions, whole.is_cut) == (3_000, False)
    assert whole.saved_bytes == 16 * (3_000 - 1)  # the leaf lives anyway


def test_what_counts_have_used_up_does_not_keep_a_leak_from_being_explained(no_garbage):
    value = torch.ones(4, requires_grad=True)
    for _ in range(300):
        value = torch.sin(value)
    losses = [torch.ones(4, requires_grad=True).exp().sum() for _ in range(10)]
    for _ in range(3):
        host_storages(most_functions=100)
    whole = graphs_of(losses, most_functions=100)
    assert [graph.heads for graph in whole] == [1] * 10


def test_many_losses_of_one_pass_stay_cheap_and_nothing_is_kept(no_garbage):
    before = LookLimit(torch).known()  # another file may have a graph at its module
    trunk = torch.ones(4, requires_grad=True).exp()
    losses = [(trunk * index).sum() for index in range(5_000)]
    (graph,) = graphs_of(losses, seconds=60, most_functions=20_000)
    assert (graph.heads, graph.functions) == (5_000, 10_001)
    del trunk, losses
    gc.collect()
    assert [one for one in LookLimit(torch).known() if not any(one is other for other in before)] == []


def test_the_figures_hold_no_tensor():
    graph = graph_of(torch.ones(MiB, requires_grad=True).exp().sum())
    assert all(type(part) in (str, int) for storage in graph.saved for part in (*storage.identity, storage.size_bytes))
    gc.collect()
    assert not [value for value in gc.get_objects() if type(value) is torch.Tensor and value.numel() == MiB]
