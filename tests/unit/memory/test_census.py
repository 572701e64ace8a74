"""The census of host memory: every array once, and nothing that it looks at notices."""

import array
import gc
import mmap
import subprocess
import sys
import textwrap
import threading
import warnings
import weakref
from types import ModuleType, SimpleNamespace

import pytest

numpy = pytest.importorskip("numpy")

from pytest_gpuclean.memory.census import host_storages  # noqa: E402
from pytest_gpuclean.units import MiB  # noqa: E402


def count_host_bytes():
    return sum(host_storages().values())


SLACK = 64 * 1024
"""What Hypothesis, coverage and other threads may bring up meanwhile."""


def zeros(size_bytes=MiB):
    return numpy.zeros(size_bytes, dtype=numpy.uint8)


@pytest.fixture(autouse=True)
def _only_what_this_test_makes():
    """Take everything older out of the collector's sight: it is the same before and after, and takes its time."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


class Census:
    def __init__(self):
        gc.collect()
        self.before = count_host_bytes()

    def grown(self, expected_bytes):
        gc.collect()
        return abs(count_host_bytes() - self.before - expected_bytes) < SLACK


def in_a_list():
    return [zeros()]


def in_a_dict_that_the_collector_does_not_track():
    return {"weights": zeros()}


def in_nested_untracked_containers():
    return {"a": {"b": ({"c": zeros()},)}}


def in_an_instance():
    return SimpleNamespace(weights=zeros())


def in_slots():
    class Slotted:
        __slots__ = ("weights",)

    kept = Slotted()
    kept.weights = zeros()
    return kept


def in_a_closure():
    weights = zeros()
    return lambda: weights


def in_a_default_argument():
    def function(weights=zeros()):
        return weights

    return function


def in_a_class_attribute():
    return type("Model", (), {"weights": zeros()})


def in_a_module_global():
    module = ModuleType("cache")
    module.WEIGHTS = zeros()
    return module


def in_an_object_array():
    return numpy.array([zeros(), None], dtype=object)


def in_a_suspended_generator():
    def generate():
        weights = zeros()
        yield 1
        yield weights

    running = generate()
    next(running)
    return running


def in_a_set_of_wrappers():
    class Wrapper:
        def __init__(self):
            self.weights = zeros()

    return {Wrapper()}


def as_a_subclass_of_arrays():
    class Image(numpy.ndarray):
        pass

    return [zeros().view(Image)]


def as_memory_of_python():
    return [numpy.frombuffer(bytearray(MiB), dtype=numpy.uint8)]


def as_memory_of_an_array():
    return [numpy.frombuffer(array.array("b", bytes(MiB)), dtype=numpy.int8)]


@pytest.mark.parametrize(
    "keep",
    [
        in_a_list,
        in_a_dict_that_the_collector_does_not_track,
        in_nested_untracked_containers,
        in_an_instance,
        in_slots,
        in_a_closure,
        in_a_default_argument,
        in_a_class_attribute,
        in_a_module_global,
        in_an_object_array,
        in_a_suspended_generator,
        in_a_set_of_wrappers,
        as_a_subclass_of_arrays,
        as_memory_of_python,
        as_memory_of_an_array,
    ],
)
def test_an_array_is_found_wherever_it_is_kept(keep):
    census = Census()
    kept = keep()
    assert census.grown(MiB)
    del kept
    assert census.grown(0)


def test_an_array_of_a_running_function_is_found():
    census = Census()
    local = zeros()
    assert census.grown(local.nbytes)


def test_an_array_of_a_running_function_of_another_thread_is_found():
    is_there, may_end = threading.Event(), threading.Event()

    def work():
        local = zeros()
        is_there.set()
        may_end.wait(10)
        return local

    census = Census()
    thread = threading.Thread(target=work)
    thread.start()
    is_there.wait(10)
    try:
        assert census.grown(MiB)
    finally:
        may_end.set()
        thread.join()


def test_a_traced_function_keeps_its_locals():
    def trace(frame, event, argument):
        if frame.f_code is work.__code__ and event == "line":
            count_host_bytes()
        return trace

    def work():
        local = zeros()
        total = local.sum()
        return total + local.nbytes

    tracer = sys.gettrace()
    sys.settrace(trace)
    try:
        assert work() == MiB
    finally:
        sys.settrace(tracer)


def test_an_array_in_a_thread_local_is_found():
    local = threading.local()
    census = Census()
    local.weights = zeros()
    assert census.grown(MiB)


def test_counting_does_not_keep_a_local_alive_that_is_deleted_later():
    class Image(numpy.ndarray):
        pass

    local = zeros().view(Image)
    alive = weakref.ref(local)
    count_host_bytes()
    del local
    gc.collect()
    assert alive() is None


def test_views_count_once():
    census = Census()
    base = zeros(2 * MiB)
    views = [base, base[:100], base[10:].reshape(-1, 2), base.T, {"view": base[::2]}]
    assert census.grown(2 * MiB)
    del views


def test_a_small_view_counts_all_of_what_it_keeps_alive():
    census = Census()
    view = zeros(2 * MiB)[:1]
    assert census.grown(2 * MiB)
    del view


def test_a_mapped_file_is_no_memory_of_this_process(tmp_path):
    path = tmp_path / "weights"
    path.write_bytes(bytes(MiB))
    census = Census()
    mapped = numpy.memmap(path, dtype=numpy.uint8, mode="r")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as map_:
        array_ = numpy.frombuffer(map_, dtype=numpy.uint8)
        assert census.grown(0)
        del array_
    del mapped


def test_an_empty_array_holds_nothing():
    census = Census()
    kept = [numpy.empty(0), numpy.empty((0, 5))]
    assert census.grown(0)
    del kept


# -- torch ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


def test_tensors_that_share_a_storage_count_once(torch):
    census = Census()
    base = torch.zeros(2 * MiB, dtype=torch.uint8)
    views = [base, base[:10], base.view(-1, 2), base.detach(), base.numpy(), torch.from_numpy(base.numpy())]
    assert census.grown(2 * MiB)
    del views


def test_a_tensor_over_an_array_counts_once(torch):
    census = Census()
    kept = torch.from_numpy(zeros())
    assert census.grown(MiB)
    del kept


def test_parameters_and_their_gradients_are_found(torch):
    census = Census()
    parameter = torch.nn.Parameter(torch.zeros(MiB // 4))
    parameter.grad = torch.zeros(MiB // 4)
    assert census.grown(2 * MiB)


def test_tensors_without_a_storage_of_their_own_hold_nothing(torch):
    census = Census()
    with torch.sparse.check_sparse_tensor_invariants():
        sparse = torch.sparse_coo_tensor(torch.zeros((1, 0), dtype=torch.long), torch.zeros(0), (MiB,))
    kept = [torch.empty(MiB, device="meta"), sparse]
    assert census.grown(0)
    del kept


def test_a_bare_storage_is_found(torch):
    census = Census()
    kept = [torch.zeros(MiB, dtype=torch.uint8).untyped_storage()]
    assert census.grown(MiB)
    del kept


# -- nothing notices ------------------------------------------------------------------------------------------------


class Hostile:
    """Raises, and counts, whatever is asked of it."""

    touched = []

    @property
    def __class__(self):
        self.touched.append("__class__")
        raise RuntimeError("__class__")

    def __getattr__(self, name):
        self.touched.append(name)
        raise RuntimeError(name)

    def __eq__(self, other):
        self.touched.append("__eq__")
        raise RuntimeError("__eq__")

    def __hash__(self):
        self.touched.append("__hash__")
        raise RuntimeError("__hash__")

    def __len__(self):
        self.touched.append("__len__")
        raise RuntimeError("__len__")

    def __bool__(self):
        self.touched.append("__bool__")
        raise RuntimeError("__bool__")

    def __repr__(self):
        self.touched.append("__repr__")
        raise RuntimeError("__repr__")

    def __iter__(self):
        self.touched.append("__iter__")
        raise RuntimeError("__iter__")


class HostileDict(dict):
    def __bool__(self):
        raise RuntimeError("__bool__")

    def __len__(self):
        raise RuntimeError("__len__")


def test_hostile_objects_are_passed_by_untouched():
    hostile = Hostile()
    kept = [hostile, {"a": hostile}, (hostile,), HostileDict(a=hostile)]
    Hostile.touched.clear()
    count_host_bytes()
    assert Hostile.touched == []
    assert len(kept) == 4


def output_of(code):
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.strip()


KEEP_AN_ARRAY_IN_AN_INSTANCE = """
    import numpy
    from pytest_gpuclean.memory.census import host_storages

    class Odd(metaclass=Meta):
        pass

    before = sum(host_storages().values())
    odd = Odd()
    odd.weights = numpy.zeros(1024, dtype=numpy.uint8)
    print(sum(host_storages().values()) - before)
"""


def test_classes_with_a_hostile_metaclass_are_passed_by():
    """In a process of its own: a class that lives on would make every later census fail too."""
    meta = """
    class Meta(type):
        def __instancecheck__(cls, instance):
            raise RuntimeError("__instancecheck__")

        def __subclasscheck__(cls, subclass):
            raise RuntimeError("__subclasscheck__")

        def __eq__(cls, other):
            raise RuntimeError("__eq__")

        __hash__ = type.__hash__
    """
    assert output_of(meta + KEEP_AN_ARRAY_IN_AN_INSTANCE) == "1024"


def test_classes_that_cannot_be_hashed_are_passed_by():
    meta = """
    class Meta(type):
        def __eq__(cls, other):
            return cls is other
    """
    assert output_of(meta + KEEP_AN_ARRAY_IN_AN_INSTANCE) == "1024"


def test_dead_weak_proxies_are_passed_by():
    class Value:
        pass

    value = Value()
    proxies = [weakref.proxy(value), {"a": weakref.proxy(value)}]
    del value
    gc.collect()
    assert count_host_bytes() >= 0
    assert len(proxies) == 2


class Lazy(ModuleType):
    def __getattribute__(self, name):
        raise AssertionError(f"{name} would load it")


def test_lazy_modules_are_not_loaded(monkeypatch):
    lazy = Lazy("lazy")
    monkeypatch.setitem(sys.modules, "lazy", lazy)
    try:
        assert count_host_bytes() >= 0
    finally:
        sys.modules.pop("lazy")


def test_properties_and_descriptors_do_not_run():
    class Model:
        @property
        def weights(self):
            raise AssertionError("it ran")

        __wrapped__ = property(lambda self: 1 / 0)

    model = Model()
    assert count_host_bytes() >= 0
    del model


def test_nothing_warns(torch):
    class Deprecated(torch.Tensor):
        @property
        def data(self):
            warnings.warn("data is deprecated", FutureWarning, stacklevel=1)
            return super().data

    graph = (torch.ones(2, requires_grad=True) * 2).sum()
    kept = [torch.zeros(3).as_subclass(Deprecated), graph, torch.tensor([1 + 1j]).conj()]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert count_host_bytes() >= 0
    del kept


def test_without_any_framework_nothing_is_counted_and_none_is_imported():
    assert (
        output_of("""
            import sys
            from pytest_gpuclean.memory.census import host_storages
            print(sum(host_storages().values()), {"numpy", "torch", "jax", "tensorflow", "cupy"} & set(sys.modules))
        """)
        == "0 set()"
    )
