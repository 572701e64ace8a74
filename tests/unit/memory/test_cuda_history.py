"""torch's memory history: on from when CUDA is in use, off where it was not on before, and asked by address."""

import pytest

from pytest_gpuclean.memory.cuda_history import CudaHistory
from pytest_gpuclean.memory.places import Places
from unit.fakes import fake_module, put, remove


class Device:
    def __init__(self, kind):
        self.type = kind


class FakeCuda:
    """As much of torch as the history needs, with a script of what it answers."""

    def __init__(self, monkeypatch, *, lacks=()):
        self.is_initialised, self.is_recording = True, False
        self.calls, self.snapshots, self.error = [], 0, None
        self.blocks = []
        private = {
            "_accelerator_isAllocatorInitialized": lambda: self.is_initialised,
            "_cuda_isHistoryEnabled": lambda: self.is_recording,
        }
        memory = {"_record_memory_history": self.record, "_snapshot": self.snapshot}
        members = {name: value for name, value in {**private, **memory}.items() if name not in lacks}
        torch = fake_module("torch")
        torch.accelerator = fake_module("torch.accelerator", current_accelerator=lambda: Device("cuda"))
        torch._C = fake_module("torch._C", **{name: value for name, value in members.items() if name in private})
        inner = fake_module("torch.cuda.memory", **{name: value for name, value in members.items() if name in memory})
        torch.cuda = fake_module("torch.cuda", memory=inner, is_initialized=lambda: self.is_initialised)
        put(monkeypatch, torch)

    def record(self, enabled, **options):
        if self.error is not None:
            raise self.error
        self.calls.append((enabled, options))
        self.is_recording = enabled is not None

    def snapshot(self):
        self.snapshots += 1
        if self.error is not None:
            raise self.error
        return {"segments": [{"device": 1, "address": 1000, "blocks": self.blocks}]}


def block(address, *frames, state="active_allocated", size=512):
    named = [{"filename": f"/project/{name}.py", "line": line, "name": function} for name, line, function in frames]
    return {"address": address, "size": size, "state": state, "frames": named}


@pytest.fixture
def history():
    return CudaHistory(Places("/project"))


def test_it_is_switched_on_once_cuda_is_in_use(monkeypatch, history):
    cuda = FakeCuda(monkeypatch)
    cuda.is_initialised = False
    history.begin()
    assert cuda.calls == []
    cuda.is_initialised = True
    for _ in range(3):
        history.begin()
    assert cuda.calls == [("state", {"stacks": "python"})]
    assert history.missing is None
    history.end()
    history.end()
    assert cuda.calls[1:] == [(None, {})]


def test_what_somebody_else_has_switched_on_is_used_and_left_on(monkeypatch, history):
    cuda = FakeCuda(monkeypatch)
    cuda.is_recording = True
    cuda.blocks = [block(4096, ("test_it", 3, "test_it"))]
    history.begin()
    history.end()
    assert (cuda.calls, cuda.is_recording) == ([], True)
    assert history.site_of("cuda:1", 4096) == "test_it.py:3 in test_it"


def test_a_test_that_has_switched_it_off_has_its_way(monkeypatch, history):
    cuda = FakeCuda(monkeypatch)
    history.begin()
    cuda.record(None)
    history.begin()
    assert not cuda.is_recording


def test_a_block_is_found_by_device_and_address(monkeypatch, history):
    cuda = FakeCuda(monkeypatch)
    cuda.blocks = [
        block(4096, ("helpers", 40, "make"), ("test_it", 12, "test_it")),
        block(8192, ("test_it", 5, "test_it"), state="inactive"),
        block(9216),
    ]
    history.begin()
    assert history.site_of("cuda:1", 4096) == "helpers.py:40 in make, from test_it.py:12 in test_it"
    assert [history.site_of(*at) for at in (("cuda:0", 4096), ("cuda:1", 8192), ("cuda:1", 9216))] == [""] * 3
    assert [history.site_of(*at) for at in (("memory", 4096), ("xpu:1", 4096), ("cuda", 4096))] == [""] * 3
    assert cuda.snapshots == 1


def test_a_new_leak_has_a_new_snapshot(monkeypatch, history):
    cuda = FakeCuda(monkeypatch)
    history.begin()
    assert history.site_of("cuda:1", 4096) == ""
    cuda.blocks = [block(4096, ("test_it", 3, "test_it"))]
    history.forget()
    assert history.site_of("cuda:1", 4096) == "test_it.py:3 in test_it"


def test_an_older_layout_of_the_snapshot_is_understood(monkeypatch, history):
    cuda = FakeCuda(monkeypatch)
    frames = [{"filename": "/project/test_it.py", "line": 7, "name": "test_it"}]
    cuda.blocks = [
        {"size": 512, "state": "inactive", "history": []},
        {"size": 1024, "state": "active_allocated", "history": [{"addr": 1512, "frames": frames}]},
    ]
    history.begin()
    assert history.site_of("cuda:1", 1512) == "test_it.py:7 in test_it"


@pytest.mark.parametrize("name", ["_cuda_isHistoryEnabled", "_record_memory_history", "_snapshot"])
def test_a_torch_without_these_private_names_is_said_to_have_no_history(monkeypatch, history, name):
    cuda = FakeCuda(monkeypatch, lacks=[name])
    history.begin()
    history.end()
    assert "no memory history" in history.missing.reason
    assert history.site_of("cuda:1", 4096) == ""
    assert cuda.calls == []


def test_a_torch_that_takes_other_arguments_costs_the_sites_and_no_more(monkeypatch, history):
    cuda = FakeCuda(monkeypatch)
    cuda.error = TypeError("unexpected keyword argument 'stacks'")
    history.begin()
    assert history.missing.reason == "TypeError: unexpected keyword argument 'stacks'"
    assert history.site_of("cuda:1", 4096) == ""
    history.end()


def test_a_snapshot_that_cannot_be_read_costs_the_sites_and_no_more(monkeypatch, history):
    cuda = FakeCuda(monkeypatch)
    history.begin()
    cuda.blocks = [{"unheard": "of"}]
    assert history.site_of("cuda:1", 4096) == ""
    assert "KeyError" in history.missing.reason


def test_without_torch_or_with_another_accelerator_nothing_happens(monkeypatch, history):
    remove(monkeypatch, "torch")
    history.begin()
    history.end()
    cuda = FakeCuda(monkeypatch)
    import torch

    torch.accelerator.current_accelerator = lambda: Device("xpu")
    torch.xpu = fake_module("torch.xpu", is_initialized=lambda: True)
    history.begin()
    assert (cuda.calls, history.missing) == ([], None)
