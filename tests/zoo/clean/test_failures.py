"""What a failure's traceback holds is given back, however the failure came about."""

import sys

import pytest
import torch


def make(device):
    return torch.ones(2048, 2048, device=device)


def test_fails(device):
    batch = make(device)
    assert batch.sum() == 0


def test_fails_in_a_comparison_of_tensors(device):
    assert torch.equal(make(device), make(device) * 2)


def test_fails_deep_inside(device):
    def outer(batch):
        doubled = batch * 2
        return inner(doubled)

    def inner(batch):
        tripled = batch * 3
        raise ValueError(f"{tripled.shape}")

    outer(make(device))


def test_fails_with_a_cause(device):
    def load():
        weights = make(device)
        raise OSError(f"short read of {weights.shape}")

    try:
        load()
    except OSError as error:
        more = make(device)
        raise RuntimeError(f"no weights, {more.shape}") from error


def test_fails_while_it_handles_an_error(device):
    def recover():
        fallback = make(device)
        raise TypeError(f"{fallback.shape}")

    try:
        weights = make(device)
        raise OSError(f"{weights.shape}")
    except OSError:
        recover()


@pytest.mark.skipif(sys.version_info < (3, 11), reason="exception groups came with Python 3.11")
def test_fails_with_a_group(device):
    errors = []
    for _ in range(3):
        try:
            batch = torch.ones(2048, 1024, device=device)
            raise ValueError(f"{batch.shape}")
        except ValueError as error:
            errors.append(error)
    raise ExceptionGroup("all shards failed", [errors[0], ExceptionGroup("the others", errors[1:])])  # noqa: F821


class ShapeError(Exception):
    def __init__(self, batch):
        super().__init__("wrong shape")
        self.batch = batch


def test_fails_with_an_error_that_holds_a_tensor(device):
    raise ShapeError(make(device))


def test_fails_with_an_error_whose_arguments_hold_a_tensor(device):
    raise KeyError("no such batch", make(device))


def test_fails_in_a_generator(device):
    def batches():
        batch = make(device)
        yield batch.shape
        raise ValueError(f"{batch.shape}")

    list(batches())


def test_fails_with_a_generator_that_is_not_done(device):
    def batches():
        batch = make(device)
        while True:
            yield batch.shape

    generator = batches()
    assert next(generator) == (1, 1)


@pytest.mark.xfail(reason="not yet")
def test_is_expected_to_fail(device):
    batch = make(device)
    assert batch.sum() == 0


@pytest.mark.xfail(reason="not yet", strict=True)
def test_is_expected_to_fail_in_any_case(device):
    batch = make(device)
    assert batch.sum() == 0


def test_gives_up_with_xfail(device):
    batch = make(device)
    pytest.xfail(f"not with {batch.shape}")


def test_skips_with_a_local(device):
    batch = make(device)
    pytest.skip(f"not with {batch.shape}")


def test_fails_by_hand(device):
    batch = make(device)
    pytest.fail(f"not with {batch.shape}")


def test_expects_an_error(device):
    def forward():
        batch = make(device)
        raise ValueError(f"{batch.shape}")

    with pytest.raises(ValueError, match="2048"):
        forward()


def test_expects_an_error_and_keeps_its_details(device):
    with pytest.raises(ShapeError) as info:
        raise ShapeError(make(device))
    assert info.value.batch.max() == 1


def test_expects_an_error_that_does_not_come(device):
    with pytest.raises(ValueError, match="shape"):
        batch = make(device)
    assert batch.max() == 1


def test_expects_another_error(device):
    with pytest.raises(ValueError, match="shape"):
        raise ShapeError(make(device))


@pytest.fixture
def breaks_at_its_start(device):
    batch = make(device)
    raise OSError(f"no connection for {batch.shape}")


def test_with_a_setup_that_errs(breaks_at_its_start):
    pass


@pytest.fixture
def breaks_at_its_end(device):
    batch = make(device)
    yield batch
    more = batch * 2
    raise OSError(f"connection lost with {more.shape}")


def test_with_a_teardown_that_errs(breaks_at_its_end):
    pass


def test_with_a_teardown_that_errs_after_a_failure(breaks_at_its_end, device):
    own = make(device)
    assert own.max() == 0


@pytest.fixture(scope="module")
def of_module_that_breaks(device):
    batch = make(device)
    raise OSError(f"no connection for {batch.shape}")


@pytest.mark.parametrize("step", range(2))
def test_with_a_module_fixture_that_errs(of_module_that_breaks, step):
    pass


@pytest.fixture
def skips_at_its_start(device):
    batch = make(device)
    pytest.skip(f"no card for {batch.shape}")


def test_with_a_setup_that_skips(skips_at_its_start):
    pass


def test_passes_after_all_these(device):
    assert make(device).max() == 1


def test_has_subtests(device, request):
    if not request.config.pluginmanager.hasplugin("subtests"):
        pytest.skip("this pytest has no subtests")
    subtests = request.getfixturevalue("subtests")
    for scale in range(3):
        with subtests.test(scale=scale):
            batch = make(device) * scale
            assert batch.max() == 1


def test_recurses_too_deep(device):
    def recurse(batch):
        return recurse(batch)

    recurse(make(device))
