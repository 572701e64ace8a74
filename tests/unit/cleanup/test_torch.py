"""torch's caches, through releases that have and that lack the functions."""

import pytest

from pytest_gpuclean.cleanup.interface import Occasion, Skip
from pytest_gpuclean.cleanup.torch import (
    SynchronizeCleaner,
    TorchCacheCleaner,
    TorchCompilerCleaner,
    TorchLibraryCleaner,
)
from unit.fakes import fake_module, put, remove

BY_HAND = Occasion(level="comprehensive")
QUICK = Occasion(level="quick", boundary=False)
IDLE = Occasion(level="quick", moved=False, allocated=False, boundary=False)
EVERY_CLEANER = [TorchLibraryCleaner, TorchCompilerCleaner, TorchCacheCleaner, SynchronizeCleaner]


class Calls(list):
    def to(self, name, answer=None):
        def function(*arguments):
            self.append((name, *arguments))
            return answer

        return function


class Plan:
    def __init__(self, size, calls):
        self.size, self.calls = size, calls

    def clear(self):
        self.calls.append(("clear plans",))
        self.size = 0


@pytest.fixture
def calls():
    return Calls()


def accelerator(calls, devices=2, with_memory=True):
    memory = fake_module(
        "torch.accelerator.memory",
        empty_cache=calls.to("empty_cache"),
        empty_host_cache=calls.to("empty_host_cache"),
    )
    more = {"memory": memory} if with_memory else {}
    return fake_module(
        "torch.accelerator",
        device_count=lambda: devices,
        current_accelerator=lambda: "cuda",  # a torch.device without index reads like that
        synchronize=calls.to("synchronize"),
        **more,
    )


def mps():
    return fake_module("torch.backends.mps", is_available=lambda: False)


def backends(calls, plan_sizes=(0, 0)):
    plans = {index: Plan(size, calls) for index, size in enumerate(plan_sizes)}
    cuda = fake_module("torch.backends.cuda", cufft_plan_cache=plans)
    return fake_module("torch.backends", cuda=cuda, mps=mps())


def cuda(calls, initialised=True, devices=2):
    return fake_module(
        "torch.cuda",
        is_initialized=lambda: initialised,
        device_count=lambda: devices,
        empty_cache=calls.to("cuda.empty_cache"),
    )


def private(calls, ready=True):
    def is_ready():
        if isinstance(ready, Exception):
            raise ready
        return ready

    return fake_module(
        "torch._C",
        _accelerator_isAllocatorInitialized=is_ready,
        _cuda_clearCublasWorkspaces=calls.to("clear cublas"),
    )


def install(monkeypatch, *modules, **members):
    torch = fake_module("torch", **members)
    put(monkeypatch, torch, *modules)
    return torch


@pytest.mark.parametrize("cleaner", EVERY_CLEANER)
def test_without_torch_there_is_nothing_to_clean(monkeypatch, cleaner):
    remove(monkeypatch, "torch", "torch._dynamo")
    assert isinstance(cleaner().clean(BY_HAND), Skip)


@pytest.mark.parametrize("cleaner", EVERY_CLEANER)
def test_a_torch_that_lacks_every_function_leaves_nothing_to_do(monkeypatch, calls, cleaner):
    install(monkeypatch, fake_module("torch._dynamo"), backends=backends(calls))
    assert isinstance(cleaner().clean(BY_HAND), Skip)


@pytest.mark.parametrize("cleaner", [TorchLibraryCleaner, TorchCacheCleaner, SynchronizeCleaner])
def test_nothing_is_done_where_no_memory_moved(monkeypatch, calls, cleaner):
    install(
        monkeypatch,
        accelerator=accelerator(calls),
        _C=private(calls),
        cuda=cuda(calls),
        backends=backends(calls),
        clear_autocast_cache=calls.to("autocast"),
    )
    assert cleaner().clean(IDLE) == Skip("no memory moved")
    assert calls == []


def test_the_allocators_caches_are_given_back(monkeypatch, calls):
    install(monkeypatch, accelerator=accelerator(calls), _C=private(calls), backends=backends(calls))
    assert TorchCacheCleaner().clean(QUICK) == "device cache, pinned host cache"
    assert calls == [("empty_cache",), ("empty_host_cache",)]


def test_a_device_that_is_not_initialised_stays_so(monkeypatch, calls):
    install(
        monkeypatch,
        accelerator=accelerator(calls),
        _C=private(calls, ready=False),
        cuda=cuda(calls, initialised=False),
        backends=backends(calls),
    )
    assert TorchCacheCleaner().clean(BY_HAND) == Skip("no device in use")
    assert SynchronizeCleaner().clean(BY_HAND) == Skip("no device in use")
    assert calls == []


def test_a_torch_on_a_machine_without_accelerator_raises_and_that_means_none(monkeypatch, calls):
    install(
        monkeypatch,
        accelerator=accelerator(calls),
        _C=private(calls, ready=RuntimeError("no accelerator")),
        backends=backends(calls),
    )
    assert SynchronizeCleaner().clean(BY_HAND) == Skip("no device in use")


def test_an_older_torch_has_its_cuda_cache_emptied(monkeypatch, calls):
    install(monkeypatch, _C=fake_module("torch._C"), cuda=cuda(calls), backends=backends(calls))
    assert TorchCacheCleaner().clean(QUICK) == "cuda cache"
    assert calls == [("cuda.empty_cache",)]


def test_a_torch_whose_accelerator_has_no_memory_module_is_an_older_one(monkeypatch, calls):
    install(
        monkeypatch,
        accelerator=accelerator(calls, with_memory=False),
        _C=private(calls),
        cuda=cuda(calls),
        backends=backends(calls),
    )
    assert TorchCacheCleaner().clean(QUICK) == "cuda cache"


def test_every_device_is_waited_for_by_its_index(monkeypatch, calls):
    """Without an index torch asks for the current device, and that initialises one."""
    install(monkeypatch, accelerator=accelerator(calls, devices=3), _C=private(calls))
    assert SynchronizeCleaner().clean(QUICK) == "3 devices"
    assert calls == [("synchronize", 0), ("synchronize", 1), ("synchronize", 2)]


def test_a_device_that_was_never_used_is_not_waited_for(monkeypatch, calls):
    """To wait for it would bring it up: a CUDA context takes hundreds of MB of the card."""
    ever = {0: 4096, 1: 0, 2: 4096}
    module = private(calls)
    module._accelerator_getDeviceStats = lambda index: {"allocated_bytes": {"all": {"allocated": ever[index]}}}
    install(monkeypatch, accelerator=accelerator(calls, devices=3), _C=module)
    assert SynchronizeCleaner().clean(QUICK) == "2 devices"
    assert calls == [("synchronize", 0), ("synchronize", 2)]


def test_a_device_of_which_a_reading_tells_that_it_was_never_used_is_not_even_asked(monkeypatch, calls):
    """Its statistics cost 13 µs, and a machine may have seven of them."""
    module = private(calls)
    asked = []
    module._accelerator_getDeviceStats = lambda index: (
        asked.append(index) or {"allocated_bytes": {"all": {"allocated": 1}}}
    )
    install(monkeypatch, accelerator=accelerator(calls, devices=4), _C=module)
    occasion = Occasion(level="quick", boundary=False, unused=frozenset({"cuda:1", "cuda:3", "xpu:0"}))
    assert SynchronizeCleaner().clean(occasion) == "2 devices"
    assert asked == [0, 2]


def test_what_cuda_libraries_keep_is_cleared(monkeypatch, calls):
    install(
        monkeypatch,
        _C=private(calls),
        cuda=cuda(calls),
        backends=backends(calls, plan_sizes=(3, 0)),
        clear_autocast_cache=calls.to("autocast"),
        is_autocast_enabled=lambda: False,
    )
    assert TorchLibraryCleaner().clean(QUICK) == "autocast cache, cuBLAS workspaces, cuFFT plans on 1 devices"
    assert calls == [("autocast",), ("clear cublas",), ("clear plans",)]


def test_an_autocast_that_is_entered_keeps_its_cache(monkeypatch, calls):
    install(monkeypatch, clear_autocast_cache=calls.to("autocast"), is_autocast_enabled=lambda: True)
    assert TorchLibraryCleaner().clean(QUICK) == Skip("nothing to clear")
    assert calls == []


def test_cuda_libraries_are_left_alone_where_cuda_is_not_initialised(monkeypatch, calls):
    install(monkeypatch, _C=private(calls), cuda=cuda(calls, initialised=False), backends=backends(calls, (3, 3)))
    assert TorchLibraryCleaner().clean(BY_HAND) == Skip("nothing to clear")
    assert calls == []


def test_compiled_code_is_kept_until_the_module_ends(monkeypatch, calls):
    compiler = fake_module("torch.compiler", reset=calls.to("reset"))
    install(monkeypatch, fake_module("torch._dynamo"), compiler=compiler)
    assert isinstance(TorchCompilerCleaner().clean(QUICK), Skip)
    assert calls == []
    assert TorchCompilerCleaner().clean(BY_HAND) == "compiled code"
    assert calls == [("reset",)]


def test_dynamo_is_not_loaded_for_the_sake_of_a_reset(monkeypatch, calls):
    remove(monkeypatch, "torch._dynamo")
    install(monkeypatch, compiler=fake_module("torch.compiler", reset=calls.to("reset")))
    assert TorchCompilerCleaner().clean(BY_HAND) == Skip("torch.compile is not in use")
    assert calls == []
