"""A fixture may put something into the value of a wider one, and take it back at its end: that is nobody's leak.

Nor does it hide one: what a test keeps afterwards is the test's, though it is as much as the fixture took back.
"""

import pytest
import torch

FLAGGED = {
    "test_keeps_as_much_as_was_taken_back": "leaked 16.0 MiB on ",
    "test_keeps_as_much_as_a_fixture_cleared": "leaked 24.0 MiB on ",
}
HELD = {
    "test_keeps_as_much_as_was_taken_back": "test_lent_to_other_fixtures.CACHE[N]",
    "test_keeps_as_much_as_a_fixture_cleared": "test_lent_to_other_fixtures.CACHE[N]",
}

CACHE = []
REGISTRY = {}


@pytest.fixture(scope="module")
def context():
    return {}


@pytest.fixture(scope="class", params=[2048, 1024])
def weights(context, device, request):
    context["weights"] = torch.ones(request.param, 2048, device=device)
    yield
    del context["weights"]


@pytest.fixture(scope="class")
def cleared():
    yield
    REGISTRY.clear()


class TestLent:
    def test_uses_what_was_put_there(self, weights, context):
        assert context["weights"].sum() > 0

    def test_adds_to_it(self, weights, context):
        context["weights"] = torch.cat([context["weights"], context["weights"]])


def test_keeps_as_much_as_was_taken_back(device):
    CACHE.append(torch.ones(2048, 2048, device=device))


class TestCleared:
    @pytest.mark.gpu_leak(allow="the fixture clears it")
    def test_keeps_what_the_fixture_clears(self, cleared, device):
        REGISTRY["x"] = torch.ones(3072, 2048, device=device)

    def test_comes_between(self, cleared):
        pass


def test_keeps_as_much_as_a_fixture_cleared(device):
    CACHE.append(torch.ones(3072, 2048, device=device))
