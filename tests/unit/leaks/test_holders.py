"""Who holds it: for each kind of holder the words that name it, and how holders are counted and ranked."""

import pytest

from . import kinds

CASES = {**kinds.DATA, **kinds.OBJECTS, **kinds.FUNCTIONS, **kinds.PROGRAM}


@pytest.mark.parametrize("name", CASES)
def test_a_holder_is_named(world, name):
    code, kind, chain = CASES[name]
    found = world(code).leak().found()
    assert found[0] == (kind, chain)
    assert len(found) == 1
