import fakegpu
import pytest
from fakegpu import MiB, allocate

KEPT = []
RUNS = []


@pytest.fixture(scope="module", autouse=True)
def small_device():
    fakegpu.CAPACITY[0] = 100 * MiB
    yield
    fakegpu.LOST[:] = [False, False]


@pytest.fixture(scope="module")
def model():
    yield allocate(8 * MiB)


def test_leaks():
    KEPT.append(allocate(20 * MiB))


def test_fits_at_the_second_time(model):
    RUNS.append(1)
    first = allocate(40 * MiB)
    assert first
    allocate((40 if len(RUNS) == 1 else 10) * MiB)


def test_never_fits(model):
    allocate(200 * MiB)


@pytest.mark.xfail
def test_is_known_not_to_fit():
    allocate(200 * MiB)


def test_fails_by_itself():
    assert not allocate(2 * MiB)


def test_breaks_a_device():
    fakegpu.LOST[1] = True
    allocate(MiB, device=1)


def test_comes_after_it():
    allocate(MiB, device=1)


def test_uses_the_other():
    allocate(MiB)
