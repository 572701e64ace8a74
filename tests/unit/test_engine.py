"""One window: what is charged to a test, to a fixture, to a module, and what is not."""

import contextlib
import dataclasses
import gc
import threading

import pytest

with contextlib.suppress(ImportError):
    import numpy as np  # noqa: F401 - it loads once a process; pytester takes out what an inner run has loaded

from pytest_gpuclean.cleanup.interface import Skip
from pytest_gpuclean.engine import Ending, Engine, Terms
from pytest_gpuclean.memory.gauge import Gauge
from pytest_gpuclean.model.leaks import Explanation, Leak
from pytest_gpuclean.model.memory import HEAP, Account, Reading
from pytest_gpuclean.units import KiB, MiB
from unit.fakes import DEVICE, Holding, ScriptedProbe, setting_up

TERMS = Terms(threshold_bytes=MiB)
MODULE = "test_a.py"


class World:
    """An engine over one scripted device, and the flow of a test through it."""

    def __init__(self, *probes, cleaners=(), threshold=MiB, **more):
        self.gpu = ScriptedProbe()
        self.kept = []
        self.events = []
        gauge = Gauge("device", [self.gpu, *probes])
        self.engine = Engine(gauge, cleaners=list(cleaners), settle_seconds=0, threshold_bytes=threshold, **more)

    def open(self, test="test_x", module=MODULE, terms=TERMS, let_go=lambda everything: None):
        self.engine.open(test, module, terms, let_go)

    def close(self, module=False, session=False, level=None, first=()):
        return self.engine.close(Ending(module=module, session=session), level, first)

    def fixture(self, key=1, name="model", scope="module", brings=64 * MiB):
        with setting_up(self.engine, key, name, scope):
            self.gpu.in_use += brings

    def release(self, key=1, gives=0, in_teardown=True):
        self.engine.fixture_release(key, in_teardown=in_teardown)
        self.gpu.in_use -= gives


@pytest.fixture
def world():
    return World()


def told(record):
    return [(leak.kind, leak.name, leak.device, leak.leaked_bytes) for leak in record.leaks]


# -- a test ---------------------------------------------------------------------------------------------------------


def test_a_test_that_uses_no_memory_is_clean_and_nothing_is_done(world):
    world.open()
    record = world.close()
    assert (record.leaks, record.cleanups, record.problems, record.given_back_bytes) == ((), (), (), 0)
    assert record.seconds > 0


def test_memory_that_is_still_in_use_after_the_test_is_its_leak(world):
    world.open("test_a.py::test_leaks")
    world.gpu.in_use += 4 * MiB
    (leak,) = world.close().leaks
    assert leak == Leak(
        kind="test",
        name="test_a.py::test_leaks",
        device="fake:0",
        source="fake",
        leaked_bytes=4 * MiB,
        threshold_bytes=MiB,
    )


class Names:
    """Says of a leak that a list holds it, or fails."""

    def __init__(self, error=None):
        self.error = error
        self.asked = []
        self.freed = []

    def note_freed(self, changes):
        if any(size < 0 for size in changes.values()):
            self.freed.append(dict(changes))
            if self.error is not None:
                raise self.error

    def mark(self):
        self.asked.append("mark")

    def take_in(self, leak, older=()):  # noqa: ARG002
        self.asked.append(f"{leak.kind}, allowed")

    def begin_module(self):
        self.asked.append("module")

    def explained(self, leak, older=()):  # noqa: ARG002
        self.asked.append(leak.kind)
        if self.error is not None:
            raise self.error
        return dataclasses.replace(leak, explanation=Explanation(cut="a list"))


def test_a_leak_is_explained_and_what_is_clean_asks_for_nothing():
    names = Names()
    world = World(explainer=names)
    world.open()
    world.close()
    assert names.asked == ["module"]
    world.open()
    world.gpu.in_use += 4 * MiB
    (leak,) = world.close().leaks
    assert leak.explanation == Explanation(cut="a list")
    assert names.asked == ["module", "test"]


def test_a_leak_that_is_not_to_be_explained_is_told_all_the_same():
    names = Names()
    world = World(explainer=names)
    world.open(terms=Terms(threshold_bytes=MiB, explains=False))
    world.gpu.in_use += 4 * MiB
    (leak,) = world.close().leaks
    assert leak.explanation is None
    assert names.asked == ["module", "test, allowed"]


def test_what_is_in_use_before_the_first_test_is_marked_as_older():
    names = Names()
    world = World(explainer=names)
    world.gpu.in_use = MiB
    for _ in range(2):
        world.open()
        world.close()
    assert names.asked == ["module", "mark"]


def test_what_a_test_has_freed_is_noted_before_anything_new_stands_there():
    names = Names()
    world = World(explainer=names)
    world.gpu.in_use = 8 * MiB
    world.open()
    world.gpu.in_use -= 6 * MiB
    world.close()
    assert names.freed == [{Account("fake:0", "fake"): -6 * MiB}]


def test_what_a_fixture_has_freed_at_its_end_is_noted_too():
    names = Names()
    world = World(explainer=names)
    world.gpu.in_use = 8 * MiB
    world.open()
    world.fixture(brings=0)
    world.release(gives=6 * MiB)
    world.close()
    assert names.freed == [{Account("fake:0", "fake"): -6 * MiB}]


def test_trouble_in_noting_what_was_freed_is_told():
    world = World(explainer=Names(RuntimeError("a hostile object")))
    world.gpu.in_use = 8 * MiB
    world.open()
    world.gpu.in_use -= 6 * MiB
    record = world.close()
    assert (record.leaks, record.problems) == (
        (),
        ("what was freed could not be looked up: RuntimeError: a hostile object",),
    )


def test_trouble_in_looking_up_who_holds_it_takes_nothing_from_the_verdict():
    world = World(explainer=Names(RuntimeError("a hostile object")))
    world.open()
    world.gpu.in_use += 4 * MiB
    record = world.close()
    assert told(record) == [("test", "test_x", "fake:0", 4 * MiB)]
    assert record.problems == ("who holds it could not be looked up: RuntimeError: a hostile object",)


def test_a_leak_is_charged_once(world):
    world.open()
    world.gpu.in_use += 4 * MiB
    world.close()
    world.open("test_next")
    assert world.close(module=True, session=True).leaks == ()


@pytest.mark.parametrize(("growth", "leaks"), [(MiB, 0), (MiB + 1, 1)])
def test_the_threshold_itself_passes(world, growth, leaks):
    world.open()
    world.gpu.in_use += growth
    assert len(world.close().leaks) == leaks


def test_each_device_is_judged_by_itself():
    second = ScriptedProbe("fake:1")
    world = World(second)
    world.open()
    world.gpu.in_use += 8 * MiB
    second.in_use += 2 * MiB
    assert sorted(leak[2:] for leak in told(world.close())) == [("fake:0", 8 * MiB), ("fake:1", 2 * MiB)]


def test_what_one_device_gives_back_does_not_pay_for_another():
    second = ScriptedProbe("fake:1")
    second.in_use = 8 * MiB
    world = World(second)
    world.open()
    world.gpu.in_use += 8 * MiB
    second.in_use = 0
    assert told(world.close()) == [("test", "test_x", "fake:0", 8 * MiB)]


def test_memory_in_garbage_is_no_leak(world):
    class Node:
        pass

    gc.collect()
    world.open()
    node = Node()
    node.itself, node.memory = node, Holding(world.gpu)
    del node
    assert world.gpu.in_use == 4 * MiB
    record = world.close()
    assert record.leaks == ()
    assert world.gpu.in_use == 0
    assert record.given_back_bytes == 4 * MiB


def test_memory_in_old_garbage_is_no_leak(world):
    class Node:
        pass

    world.open()
    node = Node()
    node.itself, node.memory = node, Holding(world.gpu)
    for generation in range(3):
        gc.collect(generation)  # it survives to the oldest generation
    del node
    assert world.close().leaks == ()


def test_memory_that_a_finalizer_of_old_garbage_lets_go_of_is_no_leak(world):
    registry = []

    class Node:
        def __init__(self):
            self.itself = self

    class Owner(Node):
        def __del__(self):
            registry.clear()  # too late for the pass that runs this: only the next finds that cycle unreachable

    world.open()
    registry.append(Node())
    registry[0].memory = Holding(world.gpu)
    owner = Owner()
    for generation in range(3):
        gc.collect(generation)
    del owner
    assert world.close().leaks == ()


def test_a_leak_costs_two_full_collections_at_most(world):
    passes = []

    def note(phase, info):
        if phase == "start" and info["generation"] == 2:
            passes.append(info)

    gc.collect()
    world.open()
    world.kept.append(Holding(world.gpu))
    gc.callbacks.append(note)
    try:
        (leak,) = world.close(module=True, session=True).leaks
    finally:
        gc.callbacks.remove(note)
    assert leak.leaked_bytes == 4 * MiB
    assert len(passes) <= 2


def test_what_the_runner_keeps_is_let_go_before_the_test_is_judged(world):
    kept = [Holding(world.gpu, 0)]
    world.open(let_go=lambda everything: kept.clear())
    kept.append(Holding(world.gpu))
    record = world.close()
    assert (record.leaks, kept) == ((), [])


def test_a_clean_test_is_not_let_go_of(world):
    world.open(let_go=lambda everything: world.events.append("let go"))
    world.close()
    assert world.events == []


def test_a_free_that_comes_late_is_no_leak():
    world = World()
    world.engine = Engine(Gauge("device", [world.gpu]), cleaners=[], settle_seconds=5)
    world.open()
    world.gpu.in_use = 4 * MiB
    world.gpu.script = [4 * MiB] * 7 + [0]
    assert world.close().leaks == ()


def test_memory_of_a_thread_that_is_about_to_end_is_no_leak():
    world = World()
    world.engine = Engine(Gauge("device", [world.gpu]), cleaners=[], settle_seconds=5)
    may_end = threading.Event()

    def work():
        holding = Holding(world.gpu)
        may_end.wait(5)
        del holding

    world.open()
    thread = threading.Thread(target=work, name="loader")
    thread.start()
    while not world.gpu.in_use:
        may_end.wait(0.001)
    threading.Timer(0.05, may_end.set).start()
    assert world.close().leaks == ()
    thread.join()


def test_memory_among_the_arguments_of_a_thread_that_is_about_to_end_is_no_leak():
    world = World()
    world.engine = Engine(Gauge("device", [world.gpu]), cleaners=[], settle_seconds=5)
    gc.collect()  # so that the ladder is at its wait while the timer runs
    world.open()
    threading.Timer(1.0, list, args=([Holding(world.gpu)],)).start()
    assert world.close().leaks == ()


def test_a_test_that_frees_what_an_earlier_one_kept_is_clean(world):
    world.gpu.in_use = 64 * MiB
    world.open()
    world.gpu.in_use = 0
    assert world.close(module=True, session=True).leaks == ()


def test_what_is_not_judged_is_not_a_leak(world):
    world.open(terms=Terms(threshold_bytes=MiB, judges=False))
    world.gpu.in_use += 64 * MiB
    assert world.close(module=True, session=True).leaks == ()


# -- fixtures of a wider scope --------------------------------------------------------------------------------------


def test_memory_of_a_module_fixture_is_not_charged_to_its_first_test(world):
    world.open()
    world.fixture(brings=64 * MiB)
    assert world.close().leaks == ()


def test_a_test_is_charged_beside_the_fixture_that_came_up_in_its_window(world):
    world.open()
    world.fixture(brings=64 * MiB)
    world.gpu.in_use += 4 * MiB
    assert told(world.close()) == [("test", "test_x", "fake:0", 4 * MiB)]


def test_a_fixture_that_gives_its_memory_back_is_clean(world):
    world.open()
    world.fixture(brings=64 * MiB)
    world.close()
    world.open("test_last")
    world.release(gives=64 * MiB)
    assert world.close(module=True, session=True).leaks == ()


def test_a_fixture_that_keeps_its_memory_is_an_error_of_the_last_test_of_its_scope(world):
    world.open("test_first")
    world.fixture(name="model", brings=64 * MiB)
    assert world.close().leaks == ()
    world.open("test_last")
    world.release(gives=24 * MiB)
    (leak,) = world.close(module=True).leaks
    assert (leak.kind, leak.name, leak.scope, leak.leaked_bytes) == ("fixture", "model", "module", 40 * MiB)


def test_a_leak_of_the_last_test_is_not_the_fixtures(world):
    world.open()
    world.fixture(brings=64 * MiB)
    world.gpu.in_use += 4 * MiB
    world.release(gives=64 * MiB)
    assert told(world.close(module=True)) == [("test", "test_x", "fake:0", 4 * MiB)]


def test_a_tests_own_memory_has_to_be_back_before_a_wider_fixture_ends(world):
    """Else what the fixture gives back would hide it."""
    world.open()
    world.fixture(brings=4 * MiB)
    world.gpu.in_use += 4 * MiB
    world.release(gives=4 * MiB)
    world.gpu.in_use -= 4 * MiB  # too late
    assert ("test", "test_x", "fake:0", 4 * MiB) in told(world.close())


def old_cycle(memory):
    """Make a cycle that only a full collection finds."""

    class Node:
        pass

    node = Node()
    node.itself, node.memory = node, memory
    for generation in range(3):
        gc.collect(generation)
    return [node]


def test_what_a_fixture_leaves_to_the_collector_is_no_leak_of_its_though_its_last_test_leaked(world):
    world.open()
    with setting_up(world.engine, 1, "model", "module"):
        value = old_cycle(Holding(world.gpu, 16 * MiB))
    world.kept.append(Holding(world.gpu))
    world.engine.fixture_release(1, in_teardown=True)
    value.clear()
    assert told(world.close(module=True)) == [("test", "test_x", "fake:0", 4 * MiB)]


def test_two_fixtures_that_end_together_are_told_apart(world):
    world.open()
    world.fixture(1, "good", brings=64 * MiB)
    world.fixture(2, "bad", brings=32 * MiB)
    world.release(2, gives=0)
    world.release(1, gives=64 * MiB)
    assert told(world.close(module=True)) == [("fixture", "bad", "fake:0", 32 * MiB)]


def test_a_test_may_free_the_memory_of_an_earlier_fixture(world):
    """As one that moves a module's model to the CPU does."""
    world.open()
    world.fixture(brings=64 * MiB)
    world.close()
    world.open("test_moves_the_model_away")
    world.gpu.in_use -= 64 * MiB
    assert world.close().leaks == ()
    world.open("test_last")
    world.release(gives=0)
    assert world.close(module=True, session=True).leaks == ()


def test_a_fixture_whose_setup_raises_is_booked_all_the_same(world):
    world.open()
    with pytest.raises(ZeroDivisionError), setting_up(world.engine, 1, "model", "module"):
        world.gpu.in_use += 64 * MiB
        raise ZeroDivisionError
    world.release(gives=64 * MiB)
    assert world.close(module=True).leaks == ()


def test_a_fixture_may_be_released_twice(world):
    world.open()
    world.fixture(brings=64 * MiB)
    world.release(gives=64 * MiB)
    world.release(gives=0)
    assert world.close(module=True).leaks == ()


def test_garbage_of_a_fixtures_setup_does_not_hide_what_the_test_leaks(world):
    class Node:
        pass

    world.open()
    with setting_up(world.engine, 1, "model", "module"):
        node = Node()
        node.itself, node.memory = node, Holding(world.gpu, 8 * MiB)
        del node
    world.kept.append(Holding(world.gpu, 8 * MiB))
    gc.collect()
    assert told(world.close()) == [("test", "test_x", "fake:0", 8 * MiB)]


def test_a_fixture_below_the_threshold_that_keeps_all_of_it_adds_to_the_drift(world):
    world.open()
    for key in range(4):
        world.fixture(key, f"small_{key}", brings=512 * KiB)
        world.release(key)
    assert told(world.close(module=True)) == [("module", MODULE, "fake:0", 2 * MiB)]


# -- what adds up ---------------------------------------------------------------------------------------------------


def test_small_leaks_that_add_up_are_an_error_of_the_module(world):
    for number in range(20):
        world.open(f"test_{number}")
        world.gpu.in_use += 900 * KiB
        record = world.close(module=number == 19)
        if number < 19:
            assert record.leaks == ()
    (leak,) = record.leaks
    assert (leak.kind, leak.name, leak.leaked_bytes, leak.tests) == ("module", MODULE, 20 * 900 * KiB, 20)


def test_small_leaks_that_are_given_back_later_are_none(world):
    for number in range(20):
        world.open(f"test_{number}")
        world.gpu.in_use += 900 * KiB
        world.close()
    world.open("test_clears_the_cache")
    world.gpu.in_use = 0
    assert world.close(module=True, session=True).leaks == ()


def test_a_drift_is_charged_once(world):
    for number in range(2):
        world.open(f"test_{number}")
        world.gpu.in_use += 900 * KiB
        record = world.close(module=number == 1)
    assert len(record.leaks) == 1
    world.open("test_b", "test_b.py")
    assert world.close(module=True, session=True).leaks == ()


def test_what_modules_keep_below_the_threshold_adds_up_over_the_session(world):
    for number in range(3):
        world.open("test_x", f"test_{number}.py")
        world.gpu.in_use += 600 * KiB
        record = world.close(module=True, session=number == 2)
    assert told(record) == [("session", "the whole run", "fake:0", 1800 * KiB)]
    assert record.leaks[0].tests == 3


def test_the_drift_of_a_module_counts_also_where_modules_alternate(world):
    for number in range(4):
        world.open("test_x", f"test_{number % 2}.py")
        world.gpu.in_use += 700 * KiB
        record = world.close(module=True)
    assert told(record) == [("module", "test_1.py", "fake:0", 1400 * KiB)]


def test_a_scope_has_a_threshold_of_its_own(world):
    terms = Terms(threshold_bytes=100 * MiB, scope_threshold_bytes=MiB)
    world.open(terms=terms)
    world.fixture(brings=8 * MiB)
    world.gpu.in_use += 2 * MiB
    world.release()
    record = world.close(module=True)
    assert [(leak.kind, leak.threshold_bytes) for leak in record.leaks] == [("fixture", MiB), ("module", MiB)]


# -- sources that come, go and fail ---------------------------------------------------------------------------------


def test_a_device_that_appears_in_the_middle_of_a_window_began_at_0(world):
    world.gpu.is_there = False
    world.open()
    world.gpu.is_there = True
    world.gpu.in_use = 4 * MiB
    assert told(world.close()) == [("test", "test_x", "fake:0", 4 * MiB)]


def test_a_probe_that_raises_in_the_middle_charges_nobody(world):
    world.open()
    world.gpu.error = RuntimeError("device lost")
    assert world.close().leaks == ()
    assert world.engine.gauge.unavailable == {"fake": "RuntimeError: device lost"}
    world.gpu.error = None
    world.gpu.in_use = 64 * MiB  # whose that is nobody can tell
    world.open("test_next")
    assert world.close(module=True, session=True).leaks == ()


def test_a_probe_that_raises_does_not_hide_another():
    second = ScriptedProbe("fake:1")
    world = World(second)
    world.open()
    world.gpu.error = RuntimeError("device lost")
    second.in_use += 4 * MiB
    assert told(world.close()) == [("test", "test_x", "fake:1", 4 * MiB)]


def test_a_device_that_comes_back_is_judged_again(world):
    world.open()
    world.gpu.error = RuntimeError("device lost")
    world.close()
    world.gpu.error = None
    world.open("test_next")
    world.gpu.in_use += 4 * MiB
    assert told(world.close()) == [("test", "test_next", "fake:0", 4 * MiB)]


# -- cleaning -------------------------------------------------------------------------------------------------------


class Cleaner:
    def __init__(self, name="mine", action=lambda: "done"):
        self.name, self.action, self.occasions = name, action, []

    def clean(self, occasion):
        self.occasions.append(occasion)
        return self.action()


def test_a_cleanup_that_frees_a_cache_leaves_no_leak():
    gpu_cache = []
    cleaner = Cleaner("cache", lambda: gpu_cache.clear() or "cleared")
    world = World(cleaners=[cleaner])
    world.open()
    gpu_cache.append(Holding(world.gpu))
    record = world.close(level="quick")
    assert record.leaks == ()
    (cleanup,) = record.cleanups
    (step,) = cleanup.steps
    assert (step.name, step.status, dict(step.given_back)) == ("cache", "done", {"fake:0": 4 * MiB})
    assert record.given_back_bytes == 4 * MiB


def test_an_idle_test_is_not_cleaned():
    cleaner = Cleaner()
    world = World(cleaners=[cleaner])
    world.open()
    assert world.close(level="quick").cleanups == ()
    assert cleaner.occasions == []


def test_somebodys_own_cleaner_runs_also_where_nothing_moved():
    cleaner = Cleaner()
    world = World()
    world.engine.add_cleaners([cleaner])
    world.open()
    world.close(level="quick")
    assert [occasion.moved for occasion in cleaner.occasions] == [False]


@pytest.mark.parametrize(("module", "level"), [(False, "quick"), (True, "quick"), (False, "comprehensive")])
def test_a_cleaner_is_told_the_occasion(module, level):
    cleaner = Cleaner()
    world = World(cleaners=[cleaner])
    world.gpu.total = 0
    world.open()
    world.gpu.in_use += 2 * MiB
    world.gpu.total += 2 * MiB
    world.close(module=module, level=level)
    occasion = cleaner.occasions[0]
    assert (occasion.level, occasion.moved, occasion.allocated, occasion.boundary) == (level, True, True, module)


def test_a_comprehensive_cleanup_runs_where_the_window_allocated_and_freed_again():
    cleaner = Cleaner()
    world = World(cleaners=[cleaner])
    world.gpu.total = 0
    world.open()
    world.gpu.total += 2 * MiB
    world.close(level="comprehensive")
    assert [(occasion.moved, occasion.allocated) for occasion in cleaner.occasions] == [(False, True)]


def test_a_cleaner_that_raises_is_recorded_and_the_others_go_on():
    def fail():
        raise ValueError("no permission")

    after = Cleaner("after")
    world = World(cleaners=[Cleaner("broken", fail), after])
    world.open()
    world.gpu.in_use += 2 * MiB
    record = world.close(level="quick")
    assert [step.status for step in record.cleanups[0].steps] == ["failed", "done"]
    assert len(after.occasions) == 1
    assert record.problems == ("broken failed: ValueError: no permission",)
    assert len(record.leaks) == 1


def test_what_the_test_asked_for_runs_first():
    order = []
    world = World(cleaners=[Cleaner("known", lambda: order.append("known") or "x")])
    world.engine.add_cleaners([Cleaner("extra", lambda: order.append("extra") or "x")])
    world.open()
    world.gpu.in_use += 2 * MiB
    world.close(level="quick", first=[Cleaner("own", lambda: order.append("own") or "x")])
    assert order == ["own", "extra", "known"]


def test_cleaning_by_hand_tells_what_each_step_gave_back():
    cache = []
    world = World(cleaners=[Cleaner("cache", lambda: cache.clear() or "cleared"), Cleaner("idle", lambda: Skip("no"))])
    world.open()
    cache.append(Holding(world.gpu))
    result = world.engine.clean("comprehensive")
    assert [(step.name, step.status) for step in result.steps] == [("cache", "done"), ("idle", "skipped")]
    assert result.given_back_bytes == 4 * MiB
    assert world.close().cleanups == (result,)


def test_cleaning_by_hand_outside_of_any_window_works():
    world = World(cleaners=[Cleaner()])
    assert world.engine.clean("quick").steps[0].status == "done"


# -- a block, a peak, an order ---------------------------------------------------------------------------------------


def test_a_block_is_judged_by_itself_and_not_charged_again(world):
    world.open()
    with world.engine.block(MiB, "block") as leaks:
        world.gpu.in_use += 4 * MiB
    assert [(leak.name, leak.leaked_bytes) for leak in leaks] == [("block", 4 * MiB)]
    assert world.close(module=True).leaks == ()


def test_what_a_block_keeps_below_its_threshold_is_the_tests(world):
    world.open()
    with world.engine.block(8 * MiB, "block") as leaks:
        world.gpu.in_use += 4 * MiB
    assert leaks == []
    assert told(world.close()) == [("test", "test_x", "fake:0", 4 * MiB)]


def test_what_a_test_leaves_to_the_collector_after_a_block_that_leaked_is_no_leak(world):
    world.open()
    with world.engine.block(MiB, "no_leak") as leaks:
        world.kept.append(Holding(world.gpu))
    assert leaks
    old_cycle(Holding(world.gpu)).clear()
    assert world.close().leaks == ()


def test_growth_before_a_block_is_not_the_blocks(world):
    world.open()
    world.gpu.in_use += 4 * MiB
    with world.engine.block(MiB, "block") as leaks:
        pass
    assert leaks == []
    assert len(world.close().leaks) == 1


def test_a_peak_above_its_limit_is_told_though_all_of_it_is_back(world):
    world.gpu.peak = 0
    world.open(terms=Terms(threshold_bytes=MiB, peak_limit_bytes=32 * MiB))
    world.gpu.peak = 64 * MiB
    (leak,) = world.close().leaks
    assert (leak.kind, leak.leaked_bytes, leak.threshold_bytes) == ("peak", 64 * MiB, 32 * MiB)


def test_a_peak_of_an_earlier_test_does_not_count(world):
    world.gpu.peak = 64 * MiB
    world.open(terms=Terms(threshold_bytes=MiB, peak_limit_bytes=32 * MiB))
    assert world.close().leaks == ()


@pytest.mark.parametrize("short", [False, True], ids=["closed in full", "closed unchanged"])
def test_the_course_of_a_window_is_kept_where_it_is_asked_for(short):
    world = World(keeps_course=True)
    world.gpu.in_use = world.gpu.peak = 4 * MiB
    for peak in (64 * MiB, 16 * MiB):
        world.open()
        world.gpu.peak = peak
        if short:
            assert world.engine.close_unchanged(None) is not None
        else:
            world.close()
        course = world.engine.course
        assert [snapshot.readings[0].allocated_bytes for snapshot in course[:2]] == [4 * MiB, 4 * MiB]
        assert course.peaks == {("fake:0", "fake"): peak}


def test_the_course_of_a_window_ends_with_what_is_in_use_after_its_cleanup():
    world = World(keeps_course=True)
    world.open()
    cycle = [Holding(world.gpu)]
    cycle.append(cycle)
    del cycle
    world.close()
    assert world.engine.course.end.readings[0].allocated_bytes == 0


def test_no_course_is_kept_where_nobody_asks(world):
    world.open()
    world.close()
    assert world.engine.course is None


def test_closing_without_a_window_is_refused(world):
    with pytest.raises(RuntimeError, match="no window is open"):
        world.close()


def test_a_window_that_was_abandoned_charges_nobody(world):
    world.open()
    world.gpu.in_use += 64 * MiB
    world.engine.abandon()
    world.open("test_next")
    assert world.close(module=True, session=True).leaks == ()


def test_a_clean_window_costs_two_looks(world):
    world.open()
    world.close()
    before = world.gpu.looks
    for _ in range(10):
        world.open()
        world.close()
    assert world.gpu.looks - before <= 20


# -- host memory ----------------------------------------------------------------------------------------------------


class ScriptedHeap:
    """Stands in for the heap probe."""

    source = "heap"
    is_slow = False

    def __init__(self):
        self.in_use = 100 * MiB

    def read(self):
        yield Reading(device=HEAP.device, source=HEAP.source, allocated_bytes=self.in_use, reserved_bytes=self.in_use)

    def reset_peak(self):
        pass


def host_engine(heap):
    return Engine(Gauge("host", [], heap), cleaners=[], settle_seconds=0)


def test_heap_growth_that_is_no_array_is_set_aside():
    heap = ScriptedHeap()
    engine = host_engine(heap)
    engine.open("test_imports_something", MODULE, TERMS)
    heap.in_use += 100 * MiB
    assert engine.close(Ending(module=True, session=True)).leaks == ()


def test_an_array_that_is_kept_is_a_leak_of_host_memory():
    numpy = pytest.importorskip("numpy")
    heap = ScriptedHeap()
    engine = host_engine(heap)
    engine.open("test_keeps", MODULE, TERMS)
    kept = [numpy.zeros(4 * MiB, dtype=numpy.uint8)]
    heap.in_use += 4 * MiB
    (leak,) = engine.close(Ending()).leaks
    assert (leak.device, leak.source, leak.leaked_bytes) == ("cpu", "arrays", kept[0].nbytes)


def test_arrays_in_a_wider_fixture_are_its_own_and_judged_at_its_end():
    numpy = pytest.importorskip("numpy")
    heap = ScriptedHeap()
    kept = []
    engine = host_engine(heap)
    engine.open("test_first", MODULE, TERMS)
    with setting_up(engine, 1, "data", "module"):
        kept.append(numpy.zeros(8 * MiB, dtype=numpy.uint8))
        heap.in_use += 8 * MiB
    assert engine.close(Ending()).leaks == ()
    engine.open("test_last", MODULE, TERMS)
    engine.fixture_release(1, in_teardown=True)
    (leak,) = engine.close(Ending(module=True)).leaks
    assert (leak.kind, leak.name, leak.leaked_bytes) == ("fixture", "data", 8 * MiB)


def test_what_a_test_adds_to_a_fixtures_value_is_the_fixtures():
    numpy = pytest.importorskip("numpy")
    heap = ScriptedHeap()
    value = {"weights": numpy.zeros(2 * MiB, dtype=numpy.uint8)}
    engine = Engine(
        Gauge("host", [], heap),
        cleaners=[],
        settle_seconds=0,
        fixture_values=lambda keys: [(key, [value]) for key in keys],
    )
    engine.open("test_first", MODULE, TERMS)
    with setting_up(engine, 1, "model", "module"):
        heap.in_use += 2 * MiB
    engine.close(Ending())
    engine.open("test_trains", MODULE, TERMS)
    value["gradients"] = numpy.zeros(4 * MiB, dtype=numpy.uint8)
    heap.in_use += 4 * MiB
    assert engine.close(Ending()).leaks == ()


class HostWorld:
    """An engine over host memory, with dicts as the values of fixtures: `world.put(value, "weights", 4 * MiB)`."""

    def __init__(self):
        self.numpy = pytest.importorskip("numpy")
        self.heap = ScriptedHeap()
        self.values = {}
        self.engine = Engine(
            Gauge("host", [], self.heap),
            cleaners=[],
            settle_seconds=0,
            fixture_values=lambda keys: [(key, [self.values[key]]) for key in keys],
        )

    def open(self, let_go=lambda everything: None):
        self.engine.open("test_x", MODULE, TERMS, let_go)

    def close(self, module=False):
        return told(self.engine.close(Ending(module=module)))

    def put(self, value, name, size):
        value.setdefault("", [])  # a dict of arrays alone is not tracked, and the locals of a traced test are not read
        value[name] = self.numpy.zeros(size, dtype=self.numpy.uint8)
        self.heap.in_use += size

    def drop(self, value, name):
        if name in value:
            self.heap.in_use -= value.pop(name).nbytes


def test_what_an_earlier_test_kept_below_the_threshold_is_not_told_of_the_next_that_leaks():
    world = HostWorld()
    kept = {}
    world.open()
    world.put(kept, "a little", 900 * KiB)
    assert world.close() == []
    world.open()
    world.put(kept, "a lot", 16 * MiB)
    assert world.close() == [("test", "test_x", "cpu", 16 * MiB)]


def test_a_heap_that_gave_something_else_back_does_not_lessen_what_a_test_leaked():
    world = HostWorld()
    kept = {}
    world.open()
    assert world.close() == []
    world.open()
    world.put(kept, "a lot", 16 * MiB)
    world.heap.in_use -= 4 * MiB
    assert world.close() == [("test", "test_x", "cpu", 16 * MiB)]


def test_what_a_full_collection_frees_of_earlier_tests_does_not_lessen_what_a_test_leaked():
    world = HostWorld()
    kept = {}

    class Documents:
        def __init__(self):
            self.itself = self

        def __del__(self):
            world.heap.in_use -= 6 * MiB

    world.open()
    world.heap.in_use += 6 * MiB
    documents = Documents()
    assert world.close() == []
    for generation in range(3):
        gc.collect(generation)
    del documents
    world.heap.in_use += 2 * MiB  # between tests: the last count of arrays is old
    world.open()
    world.put(kept, "a lot", 16 * MiB)
    assert world.close(module=True) == [("test", "test_x", "cpu", 16 * MiB)]


def test_what_an_earlier_test_added_to_a_fixture_below_the_threshold_excuses_nothing_of_a_leak():
    world = HostWorld()
    kept = {}
    cache = world.values[1] = {}
    world.open()
    with setting_up(world.engine, 1, "cache", "session"):
        pass
    world.put(cache, "batch", 512 * KiB)
    assert world.close() == []
    world.open()
    world.put(kept, "a lot", 16 * MiB)
    assert world.close() == [("test", "test_x", "cpu", 16 * MiB)]


def test_what_tests_added_to_a_fixtures_value_has_gone_when_the_runner_drops_the_value():
    world = HostWorld()
    value = world.values[1] = {}
    world.open()
    with setting_up(world.engine, 1, "cache", "module"):
        pass
    world.put(value, "batch", 8 * MiB)
    assert world.close() == []
    world.open(let_go=lambda everything: world.drop(value, "batch"))
    world.engine.fixture_release(1, in_teardown=True)
    assert world.close(module=True) == []


def test_a_fixture_that_was_only_given_back_on_a_doubt_does_not_hide_the_next_leak():
    world = HostWorld()
    value = world.values[1] = {}
    kept = {}
    world.open(let_go=lambda everything: world.drop(value, "weights") if everything else None)
    with setting_up(world.engine, 1, "model", "module"):
        world.put(value, "weights", 16 * MiB)
    world.engine.fixture_release(1, in_teardown=True)
    assert world.close(module=True) == []
    world.open()
    world.put(kept, "a lot", 16 * MiB)
    assert world.close() == [("test", "test_x", "cpu", 16 * MiB)]


def test_what_tests_added_to_a_fixtures_value_is_its_leak_where_it_stays():
    world = HostWorld()
    value = world.values[1] = {}
    world.open()
    with setting_up(world.engine, 1, "cache", "module"):
        world.heap.in_use += 8 * KiB
    world.put(value, "batch", 8 * MiB)
    assert world.close() == []
    world.open()
    world.engine.fixture_release(1, in_teardown=True)
    assert world.close(module=True) == [("fixture", "cache", "cpu", 8 * MiB)]


def test_arrays_that_a_setup_took_from_another_fixture_are_no_leak_when_they_come_back():
    world = HostWorld()
    model = world.values[1] = {}
    world.values[2] = {}
    optimizer = world.values[3] = {}
    world.open()
    with setting_up(world.engine, 1, "trained", "module"):
        world.put(model, "gradients", 8 * MiB)
    with setting_up(world.engine, 2, "without_gradients", "class"):
        world.drop(model, "gradients")
    world.put(model, "gradients", 8 * MiB)
    world.engine.fixture_release(2, in_teardown=True)
    assert world.close() == []
    world.open()
    with setting_up(world.engine, 3, "optimizer", "module"):
        pass
    world.put(optimizer, "moments", 16 * MiB)
    world.drop(model, "gradients")
    assert world.close() == []


def test_what_a_setup_put_into_another_fixtures_value_and_its_end_took_out_again_is_nobodys_leak():
    world = HostWorld()
    context = world.values[1] = {}
    world.values[2] = {}
    kept = {}
    world.open()
    with setting_up(world.engine, 1, "context", "module"):
        pass
    with setting_up(world.engine, 2, "weights", "class"):
        world.put(context, "weights", 8 * MiB)
    world.engine.fixture_release(2, in_teardown=True)
    world.drop(context, "weights")
    assert world.close() == []
    world.open()
    world.put(kept, "leaked", 8 * MiB)  # as much again, which a count that was not taken in between would not show
    assert world.close() == [("test", "test_x", "cpu", 8 * MiB)]


def test_what_a_fixture_frees_beyond_its_own_does_not_hide_what_its_last_test_keeps_in_host_memory():
    world = HostWorld()
    weights = world.values[1] = {}
    earlier, kept = {}, {}
    world.open()
    with setting_up(world.engine, 1, "weights", "class"):
        world.put(weights, "weights", 4 * MiB)
    world.put(earlier, "leaked", 4 * MiB)
    assert world.close() == [("test", "test_x", "cpu", 4 * MiB)]
    world.open()
    world.put(kept, "leaked", 4 * MiB)
    world.engine.fixture_release(1, in_teardown=True)
    world.drop(weights, "weights")
    world.drop(earlier, "leaked")
    assert world.close() == [("test", "test_x", "cpu", 4 * MiB)]


def test_a_slow_heap_is_read_at_the_edges_of_modules_and_that_is_said():
    heap = ScriptedHeap()
    heap.is_slow = True
    engine = host_engine(heap)
    for number in range(3):
        engine.open(f"test_{number}", MODULE, TERMS)
        engine.close(Ending(module=number == 2))
    assert "heap of each test" in engine.gauge.unavailable


# -- a device fails ---------------------------------------------------------------------------------------------------


class Driving:
    """A step that calls a driver."""

    name = "driving"
    calls_driver = True

    def __init__(self):
        self.calls = 0

    def clean(self, occasion):
        self.calls += 1
        return "called"


def test_what_is_held_is_told_by_whom():
    gpu = ScriptedProbe()
    engine = Engine(Gauge("device", [gpu]), settle_seconds=0, cleaners=[])
    engine.open("test_a", "m", Terms(threshold_bytes=MiB))
    with setting_up(engine, 1, "model", "module"):
        gpu.in_use += 3 * MiB
    with setting_up(engine, 2, "engine", "session"):
        gpu.in_use += 5 * MiB
    gpu.in_use += 2 * MiB
    held = engine.holdings()
    assert held.by_test == {DEVICE: 2 * MiB}
    assert held.by_fixtures == (("engine", "session", DEVICE, 5 * MiB), ("model", "module", DEVICE, 3 * MiB))
    assert held.snapshot.readings[0].allocated_bytes == 10 * MiB
    engine.close(Ending())
    assert engine.holdings().by_test is None


def test_a_lost_device_is_neither_judged_nor_cleaned_until_it_answers_again():
    gpu, driving = ScriptedProbe(), Driving()
    engine = Engine(Gauge("device", [gpu]), settle_seconds=0, cleaners=[driving])
    assert engine.devices() == [DEVICE]
    engine.open("test_a", "m", Terms(threshold_bytes=MiB))
    gpu.in_use += 8 * MiB
    engine.holdings()
    engine.lose(DEVICE, "is lost since test_a: it says so")
    gpu.in_use += 8 * MiB
    record = engine.close(Ending(), "comprehensive")
    assert record.leaks == ()
    assert engine.gauge.unavailable == {DEVICE: "is lost since test_a: it says so"}
    engine.clean("comprehensive")
    assert driving.calls == 0
    engine.regain(DEVICE)
    engine.open("test_b", "m", Terms(threshold_bytes=MiB))
    gpu.in_use += 8 * MiB
    leaks = engine.close(Ending(), "comprehensive").leaks
    assert [leak.leaked_bytes for leak in leaks] == [8 * MiB]
    assert driving.calls > 0


def test_another_device_is_judged_while_one_is_lost():
    lost, well = ScriptedProbe("fake:0"), ScriptedProbe("fake:1")
    engine = Engine(Gauge("device", [lost, well]), settle_seconds=0, cleaners=[])
    engine.open("test_a", "m", Terms(threshold_bytes=MiB))
    engine.lose("fake:0", "is lost")
    lost.in_use += 8 * MiB
    well.in_use += 4 * MiB
    assert [leak.device for leak in engine.close(Ending()).leaks] == ["fake:1"]
