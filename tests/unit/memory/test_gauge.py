"""One look at everything: what counts, and what a source that fails becomes."""

import sys

import pytest

from pytest_gpuclean.memory.cupy import CupyProbe
from pytest_gpuclean.memory.gauge import Gauge, ever_allocated, held, in_use, rounds
from pytest_gpuclean.model import Unavailable
from pytest_gpuclean.model.memory import HEAP, Account, Reading, Snapshot
from unit.fakes import ScriptedProbe, fake_module, put


class Heap:
    source = "heap"
    is_slow = False

    def __init__(self):
        self.looks = 0
        self.slack_bytes = None

    def read(self, slack_bytes=0):
        self.looks += 1
        self.slack_bytes = slack_bytes
        yield Reading(device="cpu", source="heap", allocated_bytes=5, reserved_bytes=5)

    def reset_peak(self):
        raise AssertionError("the heap keeps no peak")


def sources(snapshot):
    return [reading.source for reading in snapshot.readings]


@pytest.mark.parametrize(("watch", "expected"), [("device", ["fake"]), ("host", ["heap"]), ("all", ["fake", "heap"])])
def test_only_what_is_watched_is_read(watch, expected):
    assert sources(Gauge(watch, [ScriptedProbe()], Heap()).read()) == expected


def test_auto_watches_host_memory_where_no_accelerator_is_expected():
    gauge = Gauge("auto", [], Heap(), accelerator_expected=lambda: False)
    assert gauge.host_watched
    assert sources(gauge.read()) == ["heap"]


def test_auto_leaves_host_memory_where_an_accelerator_is_expected():
    gauge = Gauge("auto", [], Heap(), accelerator_expected=lambda: True)
    assert not gauge.host_watched
    assert gauge.read() == Snapshot()


def test_auto_leaves_host_memory_for_good_once_a_device_is_in_use():
    gpu = ScriptedProbe()
    gpu.is_there = False
    gauge = Gauge("auto", [gpu], Heap(), accelerator_expected=lambda: False)
    assert sources(gauge.read()) == ["heap"]
    gpu.is_there = True
    assert sources(gauge.read()) == ["fake"]
    gpu.is_there = False
    assert sources(gauge.read()) == []


def test_auto_asks_again_where_a_framework_may_have_been_imported(monkeypatch):
    answers = iter([False, True])
    gauge = Gauge("auto", [], Heap(), accelerator_expected=lambda: next(answers))
    assert gauge.host_watched
    assert gauge.host_watched  # nothing was imported: nobody asks
    put(monkeypatch, fake_module("framework_that_came"))
    assert not gauge.host_watched


def test_the_heap_may_be_left_out_of_a_look():
    heap = Heap()
    Gauge("all", [], heap).read(with_heap=False)
    assert heap.looks == 0


def test_a_source_that_raises_is_unavailable_with_its_reason_and_the_others_are_read():
    broken, good = ScriptedProbe(source="broken"), ScriptedProbe()
    broken.error = RuntimeError("driver gone\nmore")
    gauge = Gauge("device", [broken, good], Heap())
    snapshot = gauge.read()
    assert snapshot.unavailable == (Unavailable("broken", "RuntimeError: driver gone"),)
    assert sources(snapshot) == ["fake"]
    assert gauge.unavailable == {"broken": "RuntimeError: driver gone"}


def test_a_source_that_raises_half_way_keeps_what_it_has_said():
    class HalfWay:
        source = "half"

        def read(self):
            yield Reading(device="x:0", source="half", allocated_bytes=1, reserved_bytes=1)
            raise OSError("lost")

        def reset_peak(self):
            pass

    snapshot = Gauge("device", [HalfWay()], Heap()).read()
    assert (sources(snapshot), snapshot.unavailable) == (["half"], (Unavailable("half", "OSError: lost"),))


@pytest.mark.parametrize("answer", [None, [None], [42], ["cuda:0"]], ids=repr)
def test_an_answer_that_is_no_reading_is_unavailable(answer):
    class Rubbish:
        source = "rubbish"

        def read(self):
            return answer

        def reset_peak(self):
            pass

    snapshot = Gauge("device", [Rubbish()], Heap()).read()
    assert snapshot.readings == ()
    assert [gap.source for gap in snapshot.unavailable] == ["rubbish"]


def test_a_probe_without_a_name_is_told_by_its_class():
    class Nameless:
        source = 7

        def read(self):
            raise OSError("lost")

    assert Gauge("device", [Nameless()], Heap()).read().unavailable == (Unavailable("Nameless", "OSError: lost"),)


def test_the_very_same_answers_are_the_very_same_look():
    answer = reading()
    gpu = Answering(answer)
    gauge = Gauge("auto", [gpu], Heap())
    first = gauge.read()
    assert gauge.read() is first
    gpu.answer = reading(allocated=5)
    assert gauge.read().readings == (gpu.answer,)


def test_a_lost_device_is_out_and_in_again_though_its_source_says_the_same_all_along():
    answer = reading()
    gauge = Gauge("auto", [Answering(answer)], Heap())
    assert gauge.read().readings == (answer,)
    gauge.lost["cuda:0"] = "is lost"
    for _ in range(2):
        assert gauge.read() == Snapshot((), (Unavailable("cuda:0", "is lost"),))
    del gauge.lost["cuda:0"]
    assert gauge.read() == Snapshot((answer,))


def test_host_memory_is_read_each_time_whatever_the_devices_say():
    heap = Heap()
    gauge = Gauge("all", [Answering(reading())], heap)
    gauge.read()
    gauge.read()
    assert heap.looks == 2


def test_a_rough_look_lets_the_heap_be_told_as_it_was_and_no_other_does():
    heap = Heap()
    gauge = Gauge("host", [], heap)
    gauge.read(roughly=True)
    assert 0 < heap.slack_bytes <= 4096
    gauge.read()
    assert heap.slack_bytes == 0


class Still(Heap):
    answer = Reading(device="cpu", source="heap", allocated_bytes=5, reserved_bytes=5)

    def read(self, slack_bytes=0):
        return (self.answer,)


def test_a_heap_that_has_not_moved_makes_the_very_same_look():
    gauge = Gauge("host", [], Still())
    first = gauge.read()
    assert first.readings == (Still.answer,)
    assert gauge.read() is first
    assert gauge.read(with_heap=False).readings == ()
    assert gauge.read() == first


def test_a_device_that_comes_to_a_still_heap_is_seen_and_the_heap_no_longer():
    gpu, heap = Answering(reading(device="cpu", source="jax")), Still()
    gauge = Gauge("auto", [gpu], heap, accelerator_expected=lambda: False)
    assert sources(gauge.read()) == ["jax", "heap"]
    assert gauge.reads_host
    gpu.answer = reading()
    for _ in range(2):
        assert gauge.read().readings == (gpu.answer,)
        assert not gauge.reads_host


def test_a_heap_that_cannot_be_read_any_more_is_told(monkeypatch):
    heap = Still()
    gauge = Gauge("host", [], heap)
    gauge.read()
    gap = Unavailable("heap", "OSError: no heap")
    monkeypatch.setattr(heap, "answer", gap)
    assert gauge.read() == Snapshot((), (gap,))
    monkeypatch.undo()
    assert gauge.read() == Snapshot((Still.answer,))


def test_a_known_probe_is_asked_once_its_framework_is_loaded(monkeypatch):
    class Asked(CupyProbe):
        def read(self):
            return [reading(source="cupy")]

    gauge = Gauge("device", [Asked()], Heap())
    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    assert sources(gauge.read()) == []
    put(monkeypatch, fake_module("cupy"))
    assert sources(gauge.read()) == ["cupy"]


def test_a_probe_of_others_is_asked_whatever_package_it_names():
    gpu = Answering(reading())
    gpu.package = "not_there"
    assert sources(Gauge("device", [gpu], Heap()).read()) == ["torch"]


def test_a_peak_that_cannot_be_reset_is_told_and_the_others_are_reset():
    class Stubborn(ScriptedProbe):
        def reset_peak(self):
            raise OSError("not here")

    good = ScriptedProbe()
    good.peak, good.in_use = 100, 40
    gauge = Gauge("device", [Stubborn(source="stubborn"), good], Heap())
    gauge.reset_peaks()
    assert good.peak == 40
    assert gauge.unavailable == {"stubborn peak": "OSError: not here"}


def reading(device="cuda:0", source="torch", allocated=4, reserved=20, **more):
    return Reading(device=device, source=source, allocated_bytes=allocated, reserved_bytes=reserved, **more)


class Answering:
    source = "answering"

    def __init__(self, answer):
        self.answer = answer

    def read(self):
        return [self.answer]

    def reset_peak(self):
        pass


def test_a_snapshot_adds_up_by_account_and_by_device():
    snapshot = Snapshot((reading(), reading(requested_bytes=3), reading(source="cupy", allocated=1, reserved=2)))
    assert held(snapshot) == {Account("cuda:0", "torch"): 7, Account("cuda:0", "cupy"): 1}
    assert in_use(snapshot) == {"cuda:0": 42}


def test_what_was_ever_allocated_is_known_where_the_source_says_so():
    snapshot = Snapshot((reading(total_bytes=9), reading(source="cupy")))
    assert ever_allocated(snapshot) == {Account("cuda:0", "torch"): 9}


def test_torch_figures_are_rounded_where_nothing_says_what_was_asked_for():
    assert rounds(Snapshot((reading(),)))
    assert not rounds(Snapshot((reading(requested_bytes=3),)))
    assert not rounds(Snapshot((reading(source="cupy"),)))


def test_a_real_look_at_this_process_raises_nothing():
    snapshot = Gauge("all").read()
    assert HEAP in held(snapshot) or any(gap.source == "heap" for gap in snapshot.unavailable)
