"""What tests put into the value of a live fixture is the fixture's, by whatever way it is held there."""

import collections
import contextlib
import dataclasses
import functools
import itertools
import types
import weakref
from typing import Any

import pytest
import torch

WEAK = weakref.WeakValueDictionary()
BY_MODEL = weakref.WeakKeyDictionary()


def make(device):
    return torch.ones(2048, 2048, device=device)


class KVCache:
    def __init__(self, device):
        self.device = device
        self.blocks = []

    def append(self, rows):
        self.blocks.append(torch.ones(rows, 1024, device=self.device))


@pytest.fixture(scope="session")
def kv_cache(device):
    return KVCache(device)


@pytest.mark.parametrize("step", range(3))
def test_grows_a_cache_by_big_steps(kv_cache, step):
    kv_cache.append(2048)


@pytest.mark.parametrize("step", range(12))
def test_grows_a_cache_by_small_steps(kv_cache, step):
    kv_cache.append(128)


def test_grows_a_cache_that_is_one_tensor(kv_cache, device):
    kv_cache.blocks = [torch.cat([*kv_cache.blocks, torch.ones(2048, 1024, device=device)])]


@pytest.fixture(scope="module")
def make_model(device):
    made = {}

    def make_one(name):
        if name not in made:
            made[name] = make(device)
        return made[name]

    return make_one


@pytest.mark.parametrize("name", ["small", "large", "small"])
def test_uses_a_factory(make_model, name):
    assert make_model(name).sum() > 0


@pytest.fixture(scope="module")
def cached_factory(device):
    @functools.lru_cache
    def load(rows):
        return torch.ones(rows, 2048, device=device)

    yield load
    load.cache_clear()


@pytest.mark.parametrize("rows", [1024, 2048])
def test_uses_a_cached_factory(cached_factory, rows):
    assert cached_factory(rows).sum() > 0


@pytest.fixture(scope="module")
def partial_factory(device):
    return functools.partial(lambda store, rows: store.setdefault(rows, torch.ones(rows, 2048, device=device)), {})


def test_uses_a_partial(partial_factory):
    assert partial_factory(2048).sum() > 0


class Pool:
    __slots__ = ("__dict__", "items")

    def __init__(self):
        self.items = collections.OrderedDict()

    @functools.cached_property
    def table(self):
        return make(self.items["device"])

    def put(self, name, value):
        self.items[name] = value


@pytest.fixture(scope="module")
def pool(device):
    pool = Pool()
    pool.put("device", device)
    return pool


def test_fills_slots(pool, device):
    pool.put("x", make(device))


def test_uses_a_cached_property(pool):
    assert pool.table.max() == 1


@pytest.fixture(scope="module")
def put(device):
    return Pool().put


def test_fills_by_a_bound_method(put, device):
    put("x", make(device))


@dataclasses.dataclass(slots=True)
class State:
    step: int = 0
    last: Any = None


@pytest.fixture(scope="module")
def state():
    return types.SimpleNamespace(inner=State())


def test_keeps_a_tensor_in_a_state(state, device):
    state.inner.last = make(device)


def test_keeps_a_graph_in_a_state(state, device):
    weights = torch.ones(2048, 1024, device=device, requires_grad=True)
    state.loss = torch.nn.functional.cross_entropy(weights, torch.zeros(2048, dtype=torch.long, device=device))


@pytest.fixture(scope="module")
def recent(device):
    return collections.deque(maxlen=2)


@pytest.mark.parametrize("step", range(5))
def test_fills_a_deque_that_drops_the_oldest(recent, device, step):
    recent.append(make(device))


@pytest.fixture(scope="session")
def results():
    return {}


def test_hands_a_tensor_on(results, device):
    results["handed on"] = make(device)


def test_takes_what_was_handed_on(results):
    results.pop("handed on", None)


@pytest.fixture(scope="module")
def stack():
    with contextlib.ExitStack() as stack:
        yield stack


@contextlib.contextmanager
def borrowed(device):
    batch = make(device)
    yield batch.shape
    del batch


def test_enters_a_context_that_the_module_leaves(stack, device):
    assert stack.enter_context(borrowed(device)) == (2048, 2048)


def test_leaves_a_callback_for_the_end_of_the_module(stack, device):
    stack.callback(make(device).zero_)


@pytest.fixture(scope="module")
def within(device):
    with borrowed(device) as shape:
        yield shape


def test_runs_within_a_context(within):
    assert within == (2048, 2048)


@pytest.fixture(scope="module")
def loader(device):
    def batches():
        for step in itertools.count():
            batch = torch.full((2048, 1024), float(step), device=device)
            yield batch

    return batches()


@pytest.mark.parametrize("step", range(3))
def test_takes_a_batch_of_a_generator(loader, step):
    assert next(loader).numel() == 2048 * 1024


def test_keeps_a_weak_reference(device):
    batch = WEAK["batch"] = make(device)
    assert batch is WEAK["batch"]


@pytest.fixture(scope="module")
def observers():
    return weakref.WeakKeyDictionary()


def test_keeps_what_lives_as_long_as_something_else(observers, pool, device):
    class Owner:
        pass

    owner = Owner()
    observers[owner] = make(device)


@pytest.fixture(scope="module")
def encoder():
    return torch.nn.Linear(8, 8)


def test_keeps_what_lives_as_long_as_a_fixture(encoder, device):
    BY_MODEL[encoder] = make(device)


def test_sees_to_the_end_of_what_a_fixture_made(encoder, device):
    weakref.finalize(encoder, list, [make(device)]).atexit = False


@pytest.fixture(scope="module")
def buffers(device):
    return [make(device) for _ in range(2)]


def test_takes_away_what_a_fixture_made(buffers):
    buffers[:1] = []


def test_takes_away_the_rest(buffers):
    buffers.clear()


@pytest.fixture(scope="module")
def preallocated(device):
    return {"buffer": make(device)}


def test_replaces_what_a_fixture_made(preallocated, device):
    preallocated["buffer"] = make(device)


def test_resizes_what_a_fixture_made(preallocated):
    preallocated["buffer"].resize_(4096, 2048)


def test_swaps_the_data_of_what_a_fixture_made(preallocated, device):
    preallocated["buffer"].data = torch.ones(2048, 1024, device=device)


@pytest.fixture(scope="module")
def engine(device):
    engine = KVCache(device)
    yield weakref.proxy(engine)


@pytest.mark.parametrize("step", range(2))
def test_fills_what_it_knows_by_a_proxy(engine, step):
    engine.append(1024)
