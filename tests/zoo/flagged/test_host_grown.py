"""What grows by being made anew: the larger one is there, and the smaller one has gone."""

import pytest
import torch

FLAGGED = {
    "test_grows_a_buffer[0]": "leaked 4.0 MiB on ",
    "test_grows_a_buffer[1]": "leaked 4.0 MiB on ",
    "test_grows_a_buffer[2]": "leaked 4.0 MiB on ",
}
HELD = {
    "test_grows_a_buffer[0]": 'test_host_grown.BUFFER["rows"]',
    "test_grows_a_buffer[1]": 'test_host_grown.BUFFER["rows"]',
    "test_grows_a_buffer[2]": 'test_host_grown.BUFFER["rows"]',
}

BUFFER = {}


@pytest.mark.parametrize("step", range(3))
def test_grows_a_buffer(device, step):
    rows = torch.full((1024, 1024), float(step), device=device)
    BUFFER["rows"] = torch.cat([BUFFER["rows"], rows]) if "rows" in BUFFER else rows
