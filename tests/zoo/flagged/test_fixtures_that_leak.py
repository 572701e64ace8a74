"""A function fixture's leak is its test's."""

import pytest
import torch

FLAGGED = {
    "test_with_a_fixture_that_stashes": "leaked 16.0 MiB on ",
    "test_with_a_finalizer_that_leaks": "leaked 16.0 MiB on ",
    "test_with_a_fixture_that_leaks_after_its_yield": "leaked 16.0 MiB on ",
    "test_with_a_fixture_that_leaks_and_skips": "leaked 16.0 MiB on ",
    "TestAutouse::test_that_is_prepared": "leaked 16.0 MiB on ",
    "TestTeardownMethod::test_that_is_torn_down": "leaked 16.0 MiB on ",
    "test_with_a_fixture_parameter[large]": "leaked 16.0 MiB on ",
    "test_asks_for_a_stashing_fixture_by_name": "leaked 16.0 MiB on ",
}
HELD = {
    "TestAutouse::test_that_is_prepared": 'test_fixtures_that_leak.STASH["setup"][N]',
    "TestTeardownMethod::test_that_is_torn_down": 'test_fixtures_that_leak.STASH["teardown"][N]',
    "test_asks_for_a_stashing_fixture_by_name": "test_fixtures_that_leak.STASH[<str of 40>]",
    "test_with_a_finalizer_that_leaks": 'test_fixtures_that_leak.STASH["finalizer"][N]',
    "test_with_a_fixture_parameter[large]": 'test_fixtures_that_leak.STASH["sized"][N]',
    "test_with_a_fixture_that_leaks_after_its_yield": 'test_fixtures_that_leak.STASH["yield"][N]',
    "test_with_a_fixture_that_leaks_and_skips": 'test_fixtures_that_leak.STASH["skip"][N]',
    "test_with_a_fixture_that_stashes": 'test_fixtures_that_leak.STASH["test_with_a_fixture_that_stashes"]',
}

STASH = {}


def make(device):
    return torch.ones(2048, 2048, device=device)


@pytest.fixture
def stashing(device, request):
    STASH[request.node.name] = make(device)
    return STASH[request.node.name]


def test_with_a_fixture_that_stashes(stashing):
    assert stashing.sum() > 0


@pytest.fixture
def finalized(device, request):
    def finalizer():
        STASH["finalizer"] = STASH.get("finalizer", ()), make(device)

    request.addfinalizer(finalizer)
    return make(device)


def test_with_a_finalizer_that_leaks(finalized):
    assert finalized.sum() > 0


@pytest.fixture
def yielding(device):
    x = make(device)
    yield x
    STASH["yield"] = STASH.get("yield", ()), x


def test_with_a_fixture_that_leaks_after_its_yield(yielding):
    assert yielding.sum() > 0


@pytest.fixture
def skipping(device):
    STASH["skip"] = STASH.get("skip", ()), make(device)
    pytest.skip("no such card")


def test_with_a_fixture_that_leaks_and_skips(skipping):
    pass


class TestAutouse:
    @pytest.fixture(autouse=True)
    def prepare(self, device):
        STASH["setup"] = STASH.get("setup", ()), make(device)

    def test_that_is_prepared(self):
        assert STASH["setup"]


class TestTeardownMethod:
    def teardown_method(self):
        STASH["teardown"] = STASH.get("teardown", ()), self.model

    def test_that_is_torn_down(self, device):
        self.model = make(device)


@pytest.fixture(params=["small", "large"])
def sized(request, device):
    x = make(device)
    if request.param == "large":
        STASH["sized"] = STASH.get("sized", ()), x
    return x


def test_with_a_fixture_parameter(sized):
    assert sized.numel()


def test_asks_for_a_stashing_fixture_by_name(request):
    assert request.getfixturevalue("stashing").numel()
