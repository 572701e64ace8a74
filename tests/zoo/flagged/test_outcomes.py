"""A leak is told whatever the outcome of its test is, beside it and never instead of it."""

import pytest
import torch

FLAGGED = {
    "test_fails_after_it_leaked": "leaked 16.0 MiB on ",
    "test_leaks_right_after_a_failure": "leaked 16.0 MiB on ",
    "test_is_expected_to_fail_and_leaks": "leaked 16.0 MiB on ",
    "test_is_expected_to_fail_with_strict_and_leaks": "leaked 16.0 MiB on ",
    "test_gives_up_with_xfail_after_it_leaked": "leaked 16.0 MiB on ",
    "test_passes_unexpectedly_and_leaks": "leaked 16.0 MiB on ",
    "test_skips_after_it_leaked": "leaked 16.0 MiB on ",
    "test_leaks_with_one_of_its_parameters[32]": "leaked 16.0 MiB on ",
    "test_leaks_and_checks_an_error": "leaked 16.0 MiB on ",
    "test_keeps_an_exception": "leaked 16.0 MiB on ",
    "test_leaks_in_a_nested_call_that_fails": "leaked 16.0 MiB on ",
    "TestPlain::test_leaks_in_a_class": "leaked 16.0 MiB on ",
    "TestPlain::test_leaks_with_parameters[2-a]": "leaked 16.0 MiB on ",
    "test_errs_in_a_teardown_that_leaked": "leaked 16.0 MiB on ",
    "test_errs_in_a_setup_that_leaked": "leaked 16.0 MiB on ",
}
HELD = {
    "TestPlain::test_leaks_in_a_class": "test_outcomes.CACHE[N]",
    "TestPlain::test_leaks_with_parameters[2-a]": "test_outcomes.CACHE[N].batch",
    "test_errs_in_a_setup_that_leaked": "test_outcomes.CACHE[N]",
    "test_errs_in_a_teardown_that_leaked": "test_outcomes.CACHE[N]",
    "test_fails_after_it_leaked": "test_outcomes.CACHE[N]",
    "test_gives_up_with_xfail_after_it_leaked": "test_outcomes.CACHE[N]",
    "test_is_expected_to_fail_and_leaks": "test_outcomes.CACHE[N]",
    "test_is_expected_to_fail_with_strict_and_leaks": "test_outcomes.CACHE[N]",
    "test_keeps_an_exception": "test_outcomes.CACHE[N] -> traceback of RuntimeError in test_outcomes.",
    "test_leaks_and_checks_an_error": "test_outcomes.CACHE[N]",
    "test_leaks_in_a_nested_call_that_fails": "test_outcomes.CACHE[N]",
    "test_leaks_right_after_a_failure": "test_outcomes.CACHE[N]",
    "test_leaks_with_one_of_its_parameters[32]": "test_outcomes.CACHE[N]",
    "test_passes_unexpectedly_and_leaks": "test_outcomes.CACHE[N]",
    "test_skips_after_it_leaked": "test_outcomes.CACHE[N]",
}

CACHE = []


def make(device):
    return torch.ones(2048, 2048, device=device)


def test_fails_after_it_leaked(device):
    CACHE.append(make(device))
    assert len(CACHE) == -1


def test_fails_with_a_local_of_the_same_size(device):
    batch = make(device)
    assert batch.sum() == 0


def test_leaks_right_after_a_failure(device):
    CACHE.append(make(device))


@pytest.mark.xfail(reason="not yet")
def test_is_expected_to_fail_and_leaks(device):
    CACHE.append(make(device))
    raise ValueError("not yet")


@pytest.mark.xfail(reason="not yet", strict=True, raises=ValueError)
def test_is_expected_to_fail_with_strict_and_leaks(device):
    CACHE.append(make(device))
    raise ValueError("not yet")


def test_gives_up_with_xfail_after_it_leaked(device):
    CACHE.append(make(device))
    pytest.xfail("not yet")


@pytest.mark.xfail(reason="fixed meanwhile")
def test_passes_unexpectedly_and_leaks(device):
    CACHE.append(make(device))


def test_skips_after_it_leaked(device):
    CACHE.append(make(device))
    pytest.skip("no such card")


@pytest.mark.parametrize("batch_size", [16, 32, 64])
def test_leaks_with_one_of_its_parameters(device, batch_size):
    out = make(device)
    if batch_size == 32:
        CACHE.append(out)


def test_leaks_and_checks_an_error(device):
    with pytest.raises(ValueError, match="shape"):
        CACHE.append(make(device))
        raise ValueError("shape")


def test_keeps_an_exception(device):
    def forward():
        activations = make(device)
        raise RuntimeError(f"no kernel for {activations.dtype}")

    try:
        forward()
    except RuntimeError as error:
        CACHE.append(error)


def test_leaks_in_a_nested_call_that_fails(device):
    def inner(batch):
        CACHE.append(batch)
        return batch.no_such_method()

    inner(make(device))


class TestPlain:
    def test_leaks_in_a_class(self, device):
        self.batch = make(device)
        CACHE.append(self.batch)

    @pytest.mark.parametrize("name", ["a", "b"])
    @pytest.mark.parametrize("heads", [1, 2])
    def test_leaks_with_parameters(self, device, heads, name):
        self.batch = make(device)
        if (heads, name) == (2, "a"):
            CACHE.append(self)


@pytest.fixture
def breaks_at_its_end(device):
    yield
    CACHE.append(make(device))
    raise OSError("connection lost")


def test_errs_in_a_teardown_that_leaked(breaks_at_its_end):
    pass


@pytest.fixture
def breaks_at_its_start(device):
    CACHE.append(make(device))
    raise OSError("no connection")


def test_errs_in_a_setup_that_leaked(breaks_at_its_start):
    pass
