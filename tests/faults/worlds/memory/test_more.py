import pytest
from fakegpu import MiB, allocate


@pytest.fixture
def broken():
    raise RuntimeError("setup")


@pytest.fixture
def ends_badly():
    yield allocate(2 * MiB)
    raise RuntimeError("teardown")


def test_error(broken):
    pass


def test_ends_badly(ends_badly):
    pass


@pytest.mark.parametrize("size", [1, 2])
def test_each(size):
    assert allocate(size * MiB)
