import pytest

from .world import World


@pytest.fixture
def world(tmp_path):
    """Make modules of users; they are tidied up afterwards."""
    made = []

    def make(code, **how):
        made.append(World(code, tmp_path, **how))
        return made[-1]

    yield make
    for each in reversed(made):
        each.end()
