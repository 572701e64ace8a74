"""The simulator keeps its books, and fails, as CUDA does."""

import io
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

pytest.importorskip("torch")

import torch
from torch import nn

import simgpu
from simgpu import control

REASON = simgpu.unavailable_reason()
pytestmark = pytest.mark.skipif(REASON is not None, reason=f"no simulated accelerator: {REASON}")

KiB = 1024
MiB = 1024 * KiB
TESTS = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _clean_devices() -> Iterator[None]:
    simgpu.load()
    control.reset()
    torch.simgpu.init()
    torch.accelerator.empty_cache()
    for index in range(2):
        torch.accelerator.reset_peak_memory_stats(index)
    control.reset()
    yield
    control.reset()


def block(size_bytes: int, device: str = "simgpu:0") -> torch.Tensor:
    return torch.empty(size_bytes, dtype=torch.uint8, device=device)


def figures(index: int = 0) -> tuple[int, int]:
    return torch.accelerator.memory_allocated(index), torch.accelerator.memory_reserved(index)


def run(code: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run code in a process that has never used the device."""
    environment = {**os.environ, "PYTHONPATH": str(TESTS)}
    if folder is not None:
        environment["GPUCLEAN_SIMGPU_CACHE"] = str(folder)
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)


def test_it_is_torchs_accelerator_with_two_devices() -> None:
    assert torch.accelerator.current_accelerator() == torch.device("simgpu")
    assert torch.accelerator.device_count() == 2
    assert torch.accelerator.is_available()


@pytest.mark.parametrize(
    ("requested", "allocated", "reserved"),
    [
        (1, 512, 2 * MiB),
        (512, 512, 2 * MiB),
        (513, 1024, 2 * MiB),
        (MiB, MiB, 2 * MiB),
        (MiB + 1, MiB + 512, 20 * MiB),
        (10 * MiB - 512, 10 * MiB - 512, 20 * MiB),
        (10 * MiB, 10 * MiB, 10 * MiB),
        (11 * MiB, 12 * MiB, 12 * MiB),  # the rest of its segment is too small to split off
        (33 * MiB + 1, 34 * MiB, 34 * MiB),
    ],
)
def test_blocks_and_segments_are_rounded_as_cudas_are(requested: int, allocated: int, reserved: int) -> None:
    tensor = block(requested)
    assert figures() == (allocated, reserved)
    assert torch.accelerator.memory_stats(0)["requested_bytes.all.current"] == requested
    del tensor


def test_freed_memory_stays_reserved_until_the_cache_is_emptied() -> None:
    tensor = block(3 * MiB)
    del tensor
    assert figures() == (0, 20 * MiB)
    torch.accelerator.empty_cache()
    assert figures() == (0, 0)
    assert control.empty_cache_count() == 1


def test_a_segment_in_use_is_not_given_back() -> None:
    kept, gone = block(3 * MiB), block(4 * MiB)
    del gone
    torch.accelerator.empty_cache()
    assert figures() == (3 * MiB, 20 * MiB)
    stats = torch.accelerator.memory_stats(0)
    assert stats["inactive_split_bytes.all.current"] == 17 * MiB
    assert stats["segment.large_pool.current"] == 1
    del kept


def test_freed_neighbours_merge_and_serve_a_larger_request() -> None:
    first, second, third = block(5 * MiB), block(5 * MiB), block(5 * MiB)
    del first, third, second
    whole = block(9 * MiB)
    assert figures() == (9 * MiB, 20 * MiB)
    assert torch.accelerator.memory_stats(0)["segment.all.current"] == 1
    del whole


def test_peak_and_running_totals() -> None:
    torch.accelerator.reset_accumulated_memory_stats(0)
    tensor = block(4 * MiB)
    del tensor
    stats = torch.accelerator.memory_stats(0)
    assert torch.accelerator.max_memory_allocated(0) == 4 * MiB
    assert stats["allocated_bytes.all.allocated"] == stats["allocated_bytes.all.freed"] == 4 * MiB
    assert stats["allocated_bytes.large_pool.allocated"] == 4 * MiB
    assert stats["allocated_bytes.small_pool.allocated"] == 0
    torch.accelerator.reset_peak_memory_stats(0)
    assert torch.accelerator.max_memory_allocated(0) == 0


def test_the_second_device_keeps_its_own_books_while_the_first_is_current() -> None:
    tensor = torch.ones(1000, device="simgpu:0").to("simgpu:1")
    assert tensor.device.index == 1
    assert torch.simgpu.current_device() == 0
    assert figures(0)[0] == 0
    assert figures(1) == (4096, 2 * MiB)
    assert (tensor + 1).sum().item() == 2000


def test_the_device_module_says_what_torch_says() -> None:
    tensor = block(3 * MiB, "simgpu:1")
    assert torch.simgpu.memory_allocated(1) == torch.accelerator.memory_allocated(1) == 3 * MiB
    with torch.simgpu.device(1):
        assert torch.simgpu.memory_reserved() == torch.simgpu.max_memory_reserved() == 20 * MiB
    control.hold(1, 1024 * MiB)
    assert torch.simgpu.mem_get_info(1) == ((8192 - 1024 - 20) * MiB, 8192 * MiB)
    del tensor


def test_too_large_a_request_raises_torchs_out_of_memory_error() -> None:
    control.set_capacity(0, 64 * MiB)
    with pytest.raises(torch.OutOfMemoryError, match=r"Tried to allocate 100\.00 MiB"):
        block(100 * MiB)
    assert torch.accelerator.memory_stats(0)["num_ooms"] >= 1
    assert figures() == (0, 0)


def test_memory_that_someone_else_holds_cannot_be_allocated() -> None:
    control.hold(0, 8000 * MiB)
    with pytest.raises(torch.OutOfMemoryError):
        block(200 * MiB)
    control.hold(0, 0)
    assert block(200 * MiB).numel() == 200 * MiB


def test_the_cache_is_given_up_before_memory_runs_out() -> None:
    control.set_capacity(0, 64 * MiB)
    cached = block(40 * MiB)
    del cached
    tensor = block(50 * MiB)
    assert figures() == (50 * MiB, 50 * MiB)
    del tensor


def test_a_lost_device_fails_every_call_until_it_is_revived() -> None:
    tensor = torch.ones(3, device="simgpu:0")
    control.lose(0)
    for call in (
        lambda: tensor + 1,
        lambda: tensor.cpu(),
        lambda: tensor.add_(1),
        lambda: tensor.sum().item(),
        lambda: torch.empty(1, device="simgpu:0"),
        lambda: torch.accelerator.synchronize(0),
        lambda: torch.accelerator.empty_cache(),
        lambda: torch.accelerator.memory_allocated(0),
        lambda: torch.simgpu.mem_get_info(0),
    ):
        for _ in range(2):
            with pytest.raises(torch.AcceleratorError, match="device 0 is lost"):
                call()
    assert torch.ones(2, device="simgpu:1").sum().item() == 2
    control.revive(0)
    assert tensor.tolist() == [1, 1, 1]


def test_a_lost_device_fails_in_backward_and_lets_its_tensors_die() -> None:
    weight = torch.ones(3, device="simgpu:0", requires_grad=True)
    loss = (weight * 2).sum()
    control.lose(0, with_stats=False)
    with pytest.raises(torch.AcceleratorError):
        loss.backward()
    del weight, loss
    assert figures()[0] == 0


def test_a_late_free_stays_counted_for_its_time() -> None:
    control.late_free(0, 60_000)
    tensor = block(3 * MiB)
    del tensor
    assert figures()[0] == 3 * MiB
    control.advance(59_000)
    assert figures()[0] == 3 * MiB
    control.advance(1_001)
    assert figures() == (0, 20 * MiB)


def test_memory_recorded_on_another_stream_stays_active_until_synchronize() -> None:
    tensor = block(3 * MiB)
    tensor.record_stream(torch.simgpu.Stream(0))
    del tensor
    stats = torch.accelerator.memory_stats(0)
    assert (stats["allocated_bytes.all.current"], stats["active_bytes.all.current"]) == (0, 3 * MiB)
    torch.accelerator.synchronize(0)
    assert torch.accelerator.memory_stats(0)["active_bytes.all.current"] == 0
    assert control.synchronize_count() == 1


@pytest.mark.parametrize("foreach", [False, True])
@pytest.mark.parametrize("optimizer_type", [torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW])
def test_a_conv_net_trains_as_on_the_cpu(optimizer_type: type, foreach: bool) -> None:
    weights = []
    for device in ("cpu", "simgpu:1"):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))
        images, labels = torch.randn(2, 3, 8, 8), torch.tensor([1, 4])
        model.to(device)
        optimizer = optimizer_type(model.parameters(), lr=0.01, foreach=foreach)
        for _ in range(3):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images.to(device)), labels.to(device)).backward()
            optimizer.step()
        weights.append(model[0].weight.detach().cpu())
    torch.testing.assert_close(weights[0], weights[1])
    del model, optimizer
    assert figures(1)[0] == 0


def test_attention_embedding_and_dropout_run_forward_and_backward() -> None:
    embedding = nn.Embedding(10, 8, device="simgpu")
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, device="simgpu")
    out = layer(embedding(torch.randint(0, 10, (2, 5), device="simgpu")))
    out.sum().backward()
    assert embedding.weight.grad is not None
    assert embedding.weight.grad.device.type == "simgpu"


def test_compile_with_the_eager_backend() -> None:
    model = torch.compile(nn.Linear(4, 4).to("simgpu"), backend="eager")
    model(torch.ones(2, 4, device="simgpu")).sum().backward()


def test_tensors_are_saved_printed_and_viewed() -> None:
    tensor = torch.arange(4.0, device="simgpu:1")
    file = io.BytesIO()
    torch.save(tensor, file)
    file.seek(0)
    loaded = torch.load(file)
    assert loaded.device == tensor.device
    assert repr(loaded) == "tensor([0., 1., 2., 3.], device='simgpu:1')"
    loaded.view(2, 2)[0, 1:] += 5
    assert loaded[::2].tolist() == [0, 2]
    assert loaded.clone().tolist() == [0, 6, 2, 3]


def test_conjugate_and_negative_views_are_copied() -> None:
    tensor = torch.randn(3, dtype=torch.complex64, device="simgpu")
    assert torch.equal(tensor.conj().cpu(), tensor.cpu().conj())
    assert torch.equal(tensor.conj().imag.cpu(), tensor.cpu().conj().imag)


def test_the_devices_generator_is_seeded_and_apart_from_the_cpus() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first = torch.randn(4, device="simgpu:1").tolist()
    assert torch.equal(before, torch.get_rng_state())
    torch.simgpu.manual_seed_all(3)
    state = torch.simgpu.get_rng_state(1)
    assert torch.randn(4, device="simgpu:1").tolist() == first
    torch.simgpu.set_rng_state(state, 1)
    assert torch.randn(4, device="simgpu:1").tolist() == first


def test_asking_about_the_device_initialises_nothing() -> None:
    done = run(
        "import simgpu; simgpu.load()\n"
        "import torch\n"
        "def state():\n"
        "    ours = torch.simgpu.is_initialized()\n"
        "    torchs = torch._C._accelerator_isAllocatorInitialized()\n"
        "    assert ours == torchs == bool(simgpu.control.init_count())\n"
        "    return ours\n"
        "torch.accelerator.current_accelerator(), torch.accelerator.device_count()\n"
        "torch.accelerator.is_available(), torch.manual_seed(0), torch.device('simgpu:1')\n"
        "torch.accelerator.memory_allocated(1), torch.accelerator.empty_cache()\n"
        "torch.accelerator.synchronize(0), torch.simgpu.memory_allocated()\n"
        "assert not state()\n"
        "torch.ones(1, device='simgpu:1')\n"
        "assert state()\n"
        "torch.simgpu.init()\n"
        "assert simgpu.control.init_count() == 1\n"
    )
    assert done.returncode == 0, done.stderr


def test_a_child_forked_after_use_cannot_use_the_device() -> None:
    done = run(
        "import os, simgpu; simgpu.load()\n"
        "import torch\n"
        "torch.ones(1, device='simgpu')\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    assert torch.simgpu._is_in_bad_fork() and not torch.simgpu.is_initialized()\n"
        "    try:\n"
        "        torch.ones(1, device='simgpu')\n"
        "    except RuntimeError as error:\n"
        "        os._exit(7 if 'in forked subprocess' in str(error) else 1)\n"
        "    os._exit(2)\n"
        "assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7\n"
        "assert torch.ones(1, device='simgpu').item() == 1\n"
    )
    assert done.returncode == 0, done.stderr


def test_processes_that_build_at_once_make_one_library(tmp_path: Path) -> None:
    code = "import simgpu; print(simgpu.build())"
    with ThreadPoolExecutor(2) as pool:
        outcomes = list(pool.map(lambda _: run(code, tmp_path), range(2)))
    assert len({outcome.stdout for outcome in outcomes}) == 1, outcomes
    assert [path.suffix for path in sorted(tmp_path.iterdir())] == [".lock", ".so"]


def test_without_a_compiler_the_reason_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("GPUCLEAN_SIMGPU_CACHE", str(tmp_path))
    with pytest.raises(simgpu.SimgpuUnavailable, match="no C\\+\\+ compiler"):
        simgpu.build()


def test_control_names_a_wrong_device() -> None:
    with pytest.raises(IndexError, match="no simgpu:2: there are 2 devices"):
        control.lose(2)
