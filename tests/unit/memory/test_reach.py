"""What belongs to a value: what its data reaches, and nothing of the program around it."""

import asyncio
import sys
import time
import weakref
from types import ModuleType, SimpleNamespace

import pytest

numpy = pytest.importorskip("numpy")

import simgpu  # noqa: E402

from pytest_gpuclean.memory.reach import WALK_SECONDS, Walk  # noqa: E402
from pytest_gpuclean.model.memory import ARRAYS  # noqa: E402
from pytest_gpuclean.units import MiB  # noqa: E402


def zeros(size_bytes=MiB):
    return numpy.zeros(size_bytes, dtype=numpy.uint8)


def reached(*roots, **how):
    return Walk(**how).measure(roots).get(ARRAYS, 0)


class Node:
    def __init__(self, **values):
        vars(self).update(values)


class Slotted:
    __slots__ = ("weights",)

    def __init__(self, weights):
        self.weights = weights


def closing_over(weights):
    return lambda: weights


def ragged():
    kept = numpy.empty(2, dtype=object)
    kept[0] = zeros(MiB - 16)  # beside its own two pointers
    return kept


@pytest.mark.parametrize(
    "value",
    [
        lambda: zeros(),
        lambda: [zeros()],
        lambda: {"a": {"b": (zeros(),)}},
        lambda: Node(weights=zeros()),
        lambda: Slotted(zeros()),
        lambda: Node(inner=Node(inner=Node(weights=zeros()))),
        lambda: closing_over(zeros()),
        lambda: closing_over([Node(weights=zeros())]),
        lambda: lambda weights=zeros(): weights,
        lambda: Node(cache={"key": [zeros()]}).__class__ and Node(method=Node(weights=zeros()).__repr__),
        lambda: SimpleNamespace(weights=zeros()),
        lambda: zeros(MiB)[:1],
        ragged,
    ],
    ids=[
        "itself",
        "list",
        "nested",
        "attribute",
        "slot",
        "chain",
        "closure",
        "behind a closure",
        "default",
        "bound method",
        "namespace",
        "view",
        "object array",
    ],
)
def test_an_array_is_reached_through_data(value):
    assert reached(value()) == MiB


def test_a_cycle_ends():
    node = Node(weights=zeros())
    node.itself = [node]
    assert reached(node) == MiB


def test_a_storage_counts_once_however_often_it_is_reached():
    base = zeros(2 * MiB)
    assert reached([base, base[:10], {"view": base[1:]}]) == 2 * MiB


def test_what_one_value_has_reached_does_not_count_for_the_next():
    shared = zeros()
    walk = Walk()
    assert walk.measure([[shared]]) == {ARRAYS: MiB}
    assert walk.measure([{"same": shared, "own": zeros(2 * MiB)}]) == {ARRAYS: 2 * MiB}


CACHE = []


def a_function_of_this_module():
    return CACHE


class ClassWithACache:
    cache = []


@pytest.mark.parametrize(
    "value",
    [
        lambda: sys.modules[__name__],
        lambda: Node(module=sys.modules[__name__]),
        lambda: a_function_of_this_module,
        lambda: ClassWithACache(),
        lambda: ClassWithACache,
        lambda: Node(function=a_function_of_this_module, kind=ClassWithACache),
    ],
    ids=["module", "module attribute", "function globals", "instance of a class", "class", "both"],
)
def test_modules_classes_and_globals_belong_to_the_program(value):
    CACHE.append(zeros())
    ClassWithACache.cache.append(zeros())
    try:
        assert reached(value()) == 0
    finally:
        CACHE.clear()
        ClassWithACache.cache.clear()


def test_a_weak_reference_owns_nothing():
    owner = Node(weights=zeros())
    assert reached([weakref.ref(owner), weakref.WeakValueDictionary(a=owner)]) == 0


KEYS = Node(), Node()
BY_KEY = weakref.WeakKeyDictionary()


def test_what_is_held_for_as_long_as_a_value_lives_is_the_values():
    BY_KEY[KEYS[0]] = [zeros(), zeros()]
    BY_KEY[KEYS[1]] = zeros(3 * MiB)
    weakref.finalize(KEYS[1], dict, [zeros()], more=zeros()).atexit = False
    told = weakref.ref(KEYS[1], lambda gone, kept=zeros(): None)
    proxy = weakref.proxy(KEYS[1], lambda gone: None)
    assert reached(KEYS[0]) == 2 * MiB
    assert reached([KEYS[1]]) == 6 * MiB
    assert reached(told, proxy) == 0
    del BY_KEY[KEYS[1]]
    assert reached(KEYS[1]) == 3 * MiB


def test_keys_that_compare_and_hash_as_they_like_are_no_obstacle():
    class Like(Node):
        def __hash__(self):
            return 1

        def __eq__(self, other):
            if self.counts:
                raise RuntimeError("compared")
            return self is other

    keys, kept = [Like(counts=0), Like(counts=0)], weakref.WeakKeyDictionary()
    kept[keys[0]], kept[keys[1]] = zeros(), zeros(2 * MiB)
    assert [reached(key) for key in keys] == [MiB, 2 * MiB]
    keys[0].counts = 1
    assert reached(keys[0]) == MiB


def test_packages_may_be_closed():
    inside = type("Item", (), {"__module__": "runner.python"})()
    inside.weights = zeros()
    assert reached(inside) == MiB
    assert reached(inside, opaque_packages=["runner"]) == 0


def test_a_module_that_is_lazy_is_not_loaded():
    class Lazy(ModuleType):
        def __getattribute__(self, name):
            raise AssertionError(f"{name} would load it")

    assert reached(Node(module=Lazy("lazy"), weights=zeros())) == MiB


class Hostile:
    @property
    def __class__(self):
        raise RuntimeError("__class__")

    def __getattr__(self, name):
        raise RuntimeError(name)

    def __eq__(self, other):
        raise RuntimeError("__eq__")

    def __hash__(self):
        raise RuntimeError("__hash__")

    def __len__(self):
        raise RuntimeError("__len__")

    def __bool__(self):
        raise RuntimeError("__bool__")


def test_hostile_objects_are_walked_through_all_the_same():
    hostile = Hostile()
    vars_of_it = object.__getattribute__(hostile, "__dict__")
    vars_of_it["weights"] = zeros()
    assert reached([hostile]) == MiB


def test_a_class_without_a_module_is_walked_through():
    odd = type("Odd", (), {})
    odd.__module__ = None
    value = odd()
    value.weights = zeros()
    assert reached(value) == MiB


def test_instances_of_a_class_that_cannot_be_hashed_are_walked_through():
    class Meta(type):
        def __eq__(cls, other):
            return cls is other

    class Odd(metaclass=Meta):
        pass

    odd = Odd()
    odd.weights = zeros()
    assert reached([odd]) == MiB


def test_dead_weak_proxies_are_passed_by():
    value = Node()
    proxy = weakref.proxy(value)
    del value
    assert reached([proxy, zeros()]) == MiB


def test_a_deep_chain_does_not_exhaust_the_stack():
    chain = zeros()
    for _ in range(50_000):
        chain = [chain]
    assert reached(chain) == MiB


# -- torch ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def torch():
    torch = pytest.importorskip("torch")
    # It makes a queue for each device at the first backward pass of a process: the simulated ones have to be there.
    if simgpu.unavailable_reason() is None:
        simgpu.load()
    return torch


def test_a_model_owns_its_weights_buffers_and_gradients(torch):
    model = torch.nn.Linear(512, 512, bias=False)  # 1 MiB
    model.register_buffer("mask", torch.zeros(MiB // 4))
    assert reached(model) == 2 * MiB
    model(torch.ones(1, 512)).sum().backward()
    assert reached(model) == 3 * MiB


def test_a_gradient_that_nobody_has_asked_for_yet_is_reached(torch):
    """It has no Python object until then."""
    model = torch.nn.Linear(512, 512, bias=False)
    model(torch.ones(1, 512)).sum().backward()
    assert reached(model) == 2 * MiB


def test_an_optimizer_owns_its_state(torch):
    model = torch.nn.Linear(512, 512, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), momentum=0.9)
    model(torch.ones(1, 512)).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    assert reached(optimizer) == 2 * MiB


def test_a_loss_owns_what_its_graph_has_saved(torch):
    weights = torch.ones(MiB // 4, requires_grad=True)
    loss = (weights.exp() * 2).sum()  # exp saves its result, another MiB
    assert 0 <= reached(loss) - 2 * MiB < 64  # and some numbers
    loss.backward()
    del weights
    assert reached(loss) < 2 * MiB + 64  # its buffers are freed: the leaf and its gradient remain


def test_a_walk_over_a_graph_ends_by_itself(torch):
    """What a node has saved is a new Python object each time somebody asks."""
    weights = torch.ones(8, requires_grad=True)
    loss = weights.exp().exp().exp().sum()
    begin = time.perf_counter()
    reached(loss)
    assert time.perf_counter() - begin < WALK_SECONDS / 2


def test_asking_a_tensor_that_is_no_leaf_does_not_warn(torch):
    value = torch.ones(MiB // 4, requires_grad=True) * 2
    assert reached([value]) >= MiB


def test_tensors_without_a_storage_own_nothing(torch):
    assert reached([torch.empty(MiB, device="meta")]) == 0


def test_a_frame_is_not_walked_through():
    weights = zeros()
    assert reached([sys._getframe()]) == 0
    del weights


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # loop policies, since Python 3.14
def test_the_loop_that_is_set_belongs_to_the_program_and_not_to_the_policy():
    """pytest-asyncio gives the policy out as the value of a fixture of the session."""
    policy = asyncio.DefaultEventLoopPolicy()
    loop = policy.new_event_loop()
    policy.set_event_loop(loop)
    loop.call_later(100, len, zeros())
    try:
        assert reached(loop) == MiB
        assert reached([policy]) == 0
    finally:
        loop.close()


GLOBAL = [zeros()]


@pytest.mark.parametrize("is_async", [False, True], ids=["a generator", "an async generator"])
def test_the_variables_of_a_suspended_function_are_its_own(is_async):
    def rows():
        weights = zeros()
        yield weights.shape

    async def async_rows():
        weights = zeros()
        yield weights.shape, GLOBAL

    async def suspended():
        found = async_rows()
        await found.__anext__()
        return reached(found)

    if is_async:
        assert asyncio.run(suspended()) == MiB
        return
    found = rows()
    next(found)
    assert reached(found) == MiB
    found.close()
    assert reached(found) == 0


def test_the_loop_that_is_to_close_an_async_generator_is_not_its_own():
    async def numbers():
        yield 1

    async def waits():
        weights = zeros()
        await asyncio.sleep(60)
        return weights

    async def suspended():
        task = asyncio.ensure_future(waits())
        await asyncio.sleep(0)
        found = numbers()
        await found.__anext__()
        size_bytes = reached(found)
        task.cancel()
        return size_bytes

    assert asyncio.run(suspended()) == 0
