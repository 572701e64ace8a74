"""Every device is watched, whichever is the current one."""

import torch

FLAGGED = {
    "test_leaks_on_the_device_that_is_not_current": "leaked 16.0 MiB on simgpu:1",
    "test_leaks_on_both": ["leaked 16.0 MiB on simgpu:0", "leaked 8.0 MiB on simgpu:1"],
    "test_moves_what_it_leaks": "leaked 16.0 MiB on simgpu:1",
}
HELD = {
    "test_leaks_on_both": "test_device_second.CACHE[N]",
    "test_leaks_on_the_device_that_is_not_current": "test_device_second.CACHE[N]",
    "test_moves_what_it_leaks": "test_device_second.CACHE[N]",
}

CACHE = []


def test_leaks_on_the_device_that_is_not_current():
    CACHE.append(torch.ones(2048, 2048, device="simgpu:1"))
    assert torch.accelerator.current_device_index() == 0


def test_leaks_on_both():
    CACHE.append(torch.ones(2048, 2048, device="simgpu:0"))
    CACHE.append(torch.ones(2048, 1024, device="simgpu:1"))


def test_moves_what_it_leaks(device):
    CACHE.append(torch.ones(2048, 2048, device=device).to("simgpu:1"))


def test_uses_both():
    assert all(torch.ones(2048, 2048, device=f"simgpu:{index}").max().item() == 1 for index in range(2))
