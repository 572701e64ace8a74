"""A lower threshold and an allowance that has run out."""

import pytest
import torch

FLAGGED = {
    "test_keeps_more_than_its_own_threshold": "leaked 512.0 KiB on ",
    "test_had_an_allowance": ["leaked 16.0 MiB on ", "ran out on 2020-01-31"],
    "TestAllowed::test_has_another_threshold_than_its_class": "leaked 16.0 MiB on ",
}
HELD = {
    "TestAllowed::test_has_another_threshold_than_its_class": "test_markers_that_flag.CACHE[N]",
    "test_had_an_allowance": "test_markers_that_flag.CACHE[N]",
    "test_keeps_more_than_its_own_threshold": "test_markers_that_flag.CACHE[N]",
}

CACHE = []


@pytest.mark.gpu_leak(threshold="100KiB")
def test_keeps_more_than_its_own_threshold(device):
    CACHE.append(torch.ones(128, 1024, device=device))


@pytest.mark.gpu_leak(allow="first use of the tokenizer", until="2020-01-31")
def test_had_an_allowance(device):
    CACHE.append(torch.ones(2048, 2048, device=device))


@pytest.mark.gpu_leak(threshold="32MiB")
class TestAllowed:
    def test_stays_below_the_threshold_of_its_class(self, device):
        batch = torch.ones(2048, 2048, device=device)
        assert batch.sum() > 0

    @pytest.mark.gpu_leak(threshold="4MiB")
    def test_has_another_threshold_than_its_class(self, device):
        CACHE.append(torch.ones(2048, 2048, device=device))
