"""TensorFlow, JAX and CuPy: cleared where they are in use, and otherwise left alone."""

import pytest

from pytest_gpuclean.cleanup.frameworks import CupyCleaner, JaxCleaner, TensorFlowCleaner
from pytest_gpuclean.cleanup.host import HeapTrimCleaner
from pytest_gpuclean.cleanup.interface import Occasion, Skip
from unit.fakes import fake_module, put, remove

BY_HAND = Occasion(level="comprehensive")
QUICK = Occasion(level="quick", boundary=False)
IDLE = Occasion(level="quick", moved=False, allocated=False, boundary=False)
SUSPECTED = Occasion(level="quick", boundary=False, suspected=True)
KERAS_HOMES = [
    "keras.src.backend.common.global_state",
    "keras.src.backend",
    "keras.backend",
    "tf_keras.src.backend",
]


@pytest.fixture
def calls():
    return []


@pytest.fixture(autouse=True)
def _nothing_loaded(monkeypatch):
    remove(
        monkeypatch, "tensorflow", "tensorflow.python.eager.context", "jax", "jax._src.xla_bridge", "cupy", *KERAS_HOMES
    )


class Context:
    def __init__(self, initialised):
        self._initialized = initialised


def install_tensorflow(monkeypatch, context):
    put(
        monkeypatch,
        fake_module("tensorflow"),
        fake_module("tensorflow.python.eager.context", context_safe=lambda: context),
    )


@pytest.mark.parametrize("cleaner", [TensorFlowCleaner, JaxCleaner, CupyCleaner])
def test_what_is_not_loaded_has_nothing_to_clean(cleaner):
    assert isinstance(cleaner().clean(BY_HAND), Skip)


@pytest.mark.parametrize("home", KERAS_HOMES)
def test_a_keras_session_is_cleared_wherever_keras_keeps_it(monkeypatch, calls, home):
    install_tensorflow(monkeypatch, Context(initialised=True))
    put(monkeypatch, fake_module(home, clear_session=lambda: calls.append(home)))
    assert TensorFlowCleaner().clean(BY_HAND) == "Keras session"
    assert calls == [home]


def test_keras_3_need_not_collect_the_step_after_it_does(monkeypatch, calls):
    install_tensorflow(monkeypatch, Context(initialised=True))

    def clear_session(free_memory=True):
        calls.append(free_memory)

    put(monkeypatch, fake_module(KERAS_HOMES[0], clear_session=clear_session))
    assert TensorFlowCleaner().clean(BY_HAND) == "Keras session"
    assert calls == [False]


@pytest.mark.parametrize("occasion", [QUICK, Occasion(level="comprehensive", boundary=False)], ids=["quick", "test"])
def test_a_keras_session_is_kept_until_the_module_ends(monkeypatch, calls, occasion):
    install_tensorflow(monkeypatch, Context(initialised=True))
    put(monkeypatch, fake_module(KERAS_HOMES[0], clear_session=lambda: calls.append(1)))
    assert isinstance(TensorFlowCleaner().clean(occasion), Skip)
    assert calls == []


def test_a_suspected_leak_clears_the_session_at_once(monkeypatch, calls):
    install_tensorflow(monkeypatch, Context(initialised=True))
    put(monkeypatch, fake_module(KERAS_HOMES[0], clear_session=lambda: calls.append(1)))
    assert TensorFlowCleaner().clean(SUSPECTED) == "Keras session"


@pytest.mark.parametrize("context", [None, Context(initialised=False), object()], ids=["none", "not yet", "another"])
def test_a_tensorflow_runtime_is_not_initialised_by_cleaning(monkeypatch, calls, context):
    install_tensorflow(monkeypatch, context)
    put(monkeypatch, fake_module(KERAS_HOMES[0], clear_session=lambda: calls.append(1)))
    assert TensorFlowCleaner().clean(BY_HAND) == Skip("TensorFlow's runtime is not initialised")
    assert calls == []


def test_keras_is_not_loaded_by_cleaning(monkeypatch):
    install_tensorflow(monkeypatch, Context(initialised=True))
    assert TensorFlowCleaner().clean(BY_HAND) == Skip("Keras is not loaded")


def install_jax(monkeypatch, is_up, **members):
    put(
        monkeypatch,
        fake_module("jax", **members),
        fake_module("jax._src.xla_bridge", backends_are_initialized=lambda: is_up),
    )


def test_jax_caches_are_cleared_at_the_end_of_a_module(monkeypatch, calls):
    install_jax(monkeypatch, True, clear_caches=lambda: calls.append(1))
    assert isinstance(JaxCleaner().clean(QUICK), Skip)
    assert calls == []
    assert JaxCleaner().clean(BY_HAND) == "compiled functions"
    assert calls == [1]


def test_a_jax_backend_is_not_started_by_cleaning(monkeypatch, calls):
    install_jax(monkeypatch, False, clear_caches=lambda: calls.append(1))
    assert JaxCleaner().clean(BY_HAND) == Skip("JAX is not in use")
    assert calls == []


def test_a_jax_without_clear_caches_is_left_alone(monkeypatch):
    install_jax(monkeypatch, True)
    assert isinstance(JaxCleaner().clean(BY_HAND), Skip)


class Pool:
    def __init__(self, name, calls, held=100):
        self.name, self.calls, self.held = name, calls, held

    def total_bytes(self):
        return self.held

    def free_all_blocks(self):
        self.calls.append(self.name)


def install_cupy(monkeypatch, calls, held=100, **members):
    put(
        monkeypatch,
        fake_module(
            "cupy",
            get_default_memory_pool=lambda: Pool("pool", calls, held),
            get_default_pinned_memory_pool=lambda: Pool("pinned", calls, held),
            **members,
        ),
    )


def test_cupys_pools_are_given_back(monkeypatch, calls):
    install_cupy(monkeypatch, calls)
    assert CupyCleaner().clean(QUICK) == "pool, pinned pool"
    assert calls == ["pool", "pinned"]


def test_fft_plans_go_at_the_end_of_a_module(monkeypatch, calls):
    config = fake_module("cupy.fft.config", clear_plan_cache=lambda: calls.append("plans"))
    install_cupy(monkeypatch, calls, fft=fake_module("cupy.fft", config=config))
    assert CupyCleaner().clean(BY_HAND) == "FFT plans, pool, pinned pool"
    assert calls == ["plans", "pool", "pinned"]


def test_a_cupy_that_holds_nothing_is_left_alone(monkeypatch, calls):
    install_cupy(monkeypatch, calls, held=0)
    assert CupyCleaner().clean(BY_HAND) == Skip("CuPy holds nothing")
    assert calls == []


def test_nothing_is_done_to_cupy_where_no_memory_moved(monkeypatch, calls):
    install_cupy(monkeypatch, calls)
    assert CupyCleaner().clean(IDLE) == Skip("no memory moved")
    assert calls == []


@pytest.mark.parametrize(
    "occasion", [QUICK, SUSPECTED, Occasion(level="quick")], ids=["quick", "suspected", "boundary"]
)
def test_the_heap_is_trimmed_by_comprehensive_cleanups_at_boundaries_alone(occasion):
    assert isinstance(HeapTrimCleaner().clean(occasion), Skip)


def test_the_heap_is_trimmed_where_the_system_can():
    outcome = HeapTrimCleaner().clean(BY_HAND)
    assert outcome == "free pages given back to the system" or isinstance(outcome, Skip)
