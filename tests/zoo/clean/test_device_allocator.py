"""What an allocator keeps for itself is no leak, and what comes back late is none either."""

import torch
from simgpu import control


def test_leaves_free_blocks_to_the_allocator():
    del [torch.ones(2048, 2048, device="simgpu:0") for _ in range(8)][:]
    assert torch.accelerator.memory_reserved(0) >= 0


def test_splits_a_block():
    large = torch.ones(4096, 2048, device="simgpu:0")
    del large
    assert torch.ones(2048, 64, device="simgpu:0").max() == 1


def test_gives_back_late():
    x = torch.ones(2048, 2048, device="simgpu:0")
    control.late_free(0, 100)
    try:
        del x
    finally:
        control.late_free(0, 0)


def test_does_what_comes_after_a_late_free():
    assert torch.ones(2048, 2048, device="simgpu:0").max() == 1


def test_makes_the_other_device_current_for_a_while():
    with torch.simgpu.device(1):
        assert torch.ones(2048, 2048, device="simgpu").device.index == 1


def test_moves_between_devices():
    x = torch.ones(2048, 2048, device="simgpu:0").to("simgpu:1").to("cpu")
    assert x.max() == 1


def test_keeps_host_memory_that_nobody_watches():
    test_keeps_host_memory_that_nobody_watches.kept = torch.ones(2048, 2048)


def test_uses_a_stream():
    stream = torch.Stream(device="simgpu:0")
    with stream:
        x = torch.ones(2048, 2048, device="simgpu:0")
    stream.synchronize()
    assert x.max() == 1
