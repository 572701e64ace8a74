import pytest
from fakegpu import MiB, allocate

KEPT = []


@pytest.fixture(scope="module")
def engine():
    KEPT.append(allocate(8 * MiB))


def test_leaks():
    KEPT.append(allocate(4 * MiB))


def test_passes():
    pass


def test_leaks_once():
    if len(KEPT) == 1:
        KEPT.append(allocate(4 * MiB))


def test_engine(engine):
    pass
