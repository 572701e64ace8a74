"""Module fixtures that give their memory back, in every way that there is."""

import contextlib

import pytest
import torch

STORE = {}


def make(device):
    return torch.ones(2048, 2048, device=device)


@pytest.fixture(scope="module")
def stored(device):
    STORE["stored"] = make(device)
    yield STORE["stored"]
    del STORE["stored"]


@pytest.fixture(scope="module")
def finalized(device, request):
    request.addfinalizer(lambda: STORE.pop("finalized"))
    STORE["finalized"] = [make(device)]


@pytest.fixture(scope="module")
def cyclic(device):
    cycle = {"x": make(device)}
    cycle["self"] = cycle
    return cycle


@pytest.fixture(scope="module")
def on_top_of(stored, cyclic):
    with contextlib.closing(contextlib.ExitStack()):
        yield [stored * 2, cyclic["x"] * 2]


def test_uses_them(stored, finalized, cyclic, on_top_of):
    assert on_top_of[0].max() == 2


def test_uses_one(stored):
    assert stored.max() == 1


def test_fills_one(cyclic, device):
    cyclic["y"] = make(device)


def test_fails_with_them(stored, cyclic, device):
    own = make(device)
    assert (own + stored + cyclic["x"]).max() == 0
