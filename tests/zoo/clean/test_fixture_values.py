"""What fixtures bring up is theirs, of whatever scope and whenever it comes up."""

import pytest
import torch


def make(device):
    return torch.ones(2048, 2048, device=device)


@pytest.fixture
def batch(device):
    return make(device)


@pytest.fixture
def yielded(batch):
    yield batch * 2


@pytest.fixture(scope="class")
def of_class(device):
    return make(device)


@pytest.fixture(scope="module")
def of_module(device):
    return make(device)


@pytest.fixture(scope="session")
def of_session(device):
    return make(device)


@pytest.fixture(scope="module")
def asked_for_late(of_session):
    return of_session + 1


@pytest.fixture(scope="session")
def asked_for_late_by_a_class(device):
    return make(device)


@pytest.fixture(scope="module", params=[1024, 2048])
def swapped(request, device):
    return torch.ones(2048, request.param, device=device)


@pytest.fixture(scope="module", params=["float32", "float64"])
def swapped_with_teardown(request, device):
    state = {"x": torch.ones(1024, 2048, device=device, dtype=getattr(torch, request.param))}
    yield state
    state.clear()


def test_uses_a_fixture_value(batch):
    assert batch.sum() > 0


def test_uses_a_fixture_of_a_fixture(yielded):
    assert yielded.max() == 2


def test_uses_all_scopes(batch, of_class, of_module, of_session):
    assert (batch + of_class + of_module + of_session).max() == 4


class TestScopes:
    def test_uses_the_class_fixture(self, of_class):
        assert of_class.sum() > 0

    def test_asks_in_the_middle(self, request, device):
        before = make(device)
        late = request.getfixturevalue("asked_for_late_by_a_class")
        after = make(device)
        assert (before + late + after).max() == 3


def test_asks_for_a_chain_in_the_middle(request, batch):
    before = batch * 2
    late = request.getfixturevalue("asked_for_late")
    assert (before + late).max() == 4


def test_asks_for_what_is_there(asked_for_late, of_session):
    assert (asked_for_late - of_session).max() == 1


@pytest.mark.parametrize("step", range(3))
def test_uses_a_parametrized_module_fixture(swapped, step):
    assert swapped.max() == 1


def test_uses_another_one(swapped_with_teardown):
    assert swapped_with_teardown["x"].max() == 1


@pytest.mark.parametrize("batch_like", [8, 16], indirect=True)
def test_uses_an_indirect_parameter(batch_like):
    assert batch_like.numel()


@pytest.fixture
def batch_like(request, device):
    return torch.ones(request.param, 1024, 256, device=device)
