"""What a test takes away from one fixture excuses no other that does not give its memory back."""

import pytest
import torch

FLAGGED_SOMEWHERE = {"gpuclean: fixture 'lent' (module scope) leaked 16.0 MiB on "}

KEPT = []


@pytest.fixture(scope="module")
def lent():
    lent = []
    yield lent
    lent.clear()


@pytest.fixture(scope="module")
def cache():
    cache = {}
    yield cache
    cache.clear()


@pytest.mark.parametrize("step", range(2))
def test_fills_and_empties_a_cache(lent, cache, device, step):
    if not cache:
        cache["rows"] = torch.ones(4096, 2048, device=device)
    else:
        cache.clear()


def test_lends_what_it_keeps(lent, cache, device):
    lent.append(torch.ones(2048, 2048, device=device))
    KEPT.append(lent[0])
