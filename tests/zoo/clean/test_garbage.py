"""Garbage is no leak, in however many passes it goes."""

import gc
import sys
import weakref
from unittest import mock

import torch


def make(device):
    return torch.ones(2048, 2048, device=device)


class Node:
    def __init__(self, value=None):
        self.value = value
        self.peer = self


class Guard(Node):
    """Lets go of another cycle in its finalizer, which takes a second pass."""

    def __del__(self):
        self.held[0] = Node(self.value)


def test_leaves_a_cycle(device):
    Node(make(device))


def test_leaves_a_list_that_holds_itself(device):
    cycle = [make(device)]
    cycle.append(cycle)


def test_leaves_a_cycle_that_takes_two_passes(device):
    holder = [None]
    guard = Guard(Node(make(device)))
    guard.held = holder


def test_leaves_a_chain_of_finalizers(device):
    class Link:
        def __init__(self, following):
            self.following, self.cycle = following, self

        def __del__(self):
            following = self.following
            if following is not None:
                following.again = following

    last = Link(None)
    last.batch = make(device)
    Link(Link(Link(last)))


def test_leaves_an_old_cycle(device):
    node = Node(make(device))
    gc.collect()
    gc.collect()
    assert node.value is not None


def test_leaves_an_exception_that_knows_its_frame(device):
    batch = make(device)
    try:
        raise ValueError(f"{batch.shape}")
    except ValueError as error:
        kept = error
    assert kept.__traceback__ is not None


def test_leaves_its_own_frame(device):
    batch = make(device)
    frame = sys._getframe()
    assert frame.f_locals["batch"] is batch


def test_leaves_a_recursive_closure(device):
    batch = make(device)

    def visit(depth):
        return visit(depth - 1) if depth else batch.max()

    assert visit(3) == 1


def test_leaves_a_class_of_its_own(device):
    class Model:
        weights = make(device)

    assert Model().weights.max() == 1


def test_leaves_a_module_with_a_hook_on_itself(device):
    model = torch.nn.Linear(2048, 1024).to(device)
    model.register_forward_hook(lambda module, args, output: model.weight)
    model(torch.ones(4, 2048, device=device)).sum().backward()


def test_leaves_a_mock(device):
    model = mock.Mock()
    model.forward(make(device))
    model.forward.side_effect = lambda batch: model
    model.forward(make(device))


def test_leaves_a_weak_finalizer(device):
    node = Node(make(device))
    weakref.finalize(node, list, [make(device)])


def test_leaves_a_cycle_while_collection_is_off(device):
    gc.disable()
    try:
        Node(make(device))
    finally:
        gc.enable()


def test_leaves_a_suspended_generator_in_a_cycle(device):
    def batches():
        batch = make(device)
        yield itself
        yield batch

    itself = batches()
    next(itself)


def test_leaves_an_asynchronous_generator(device):
    async def batches():
        batch = make(device)
        yield batch.shape
        yield batch.shape

    async def first_shape():
        return await anext(batches())

    coroutine = first_shape()
    try:
        coroutine.send(None)
    except StopIteration as stop:
        assert stop.value == (2048, 2048)
