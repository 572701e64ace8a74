"""What a victim's report, and the summary of a run, say about full and lost devices."""

import dataclasses

import pytest

from pytest_gpuclean.model import Unavailable
from pytest_gpuclean.model.leaks import Leak
from pytest_gpuclean.model.memory import FixtureHolding, Holdings, Reading, Snapshot
from pytest_gpuclean.model.records import DeviceFailure
from pytest_gpuclean.reports.failures import (
    Elsewhere,
    consequence_text,
    failure_lines,
    is_same_device,
    lost_text,
    victim_text,
)
from pytest_gpuclean.units import GiB, MiB

OOM = DeviceFailure(
    test="test_b.py::test_big",
    kind="out_of_memory",
    device="cuda:0",
    error="OutOfMemoryError: CUDA out of memory.",
    asked_bytes=2 * GiB,
)


def reading(allocated, reserved=None, device="cuda:0"):
    return Reading(device=device, source="torch", allocated_bytes=allocated, reserved_bytes=reserved or allocated)


def held(*readings, test=0, fixtures=(), gaps=()):
    by_fixtures = tuple(FixtureHolding(*fixture) for fixture in fixtures)
    return Holdings(snapshot=Snapshot(readings, tuple(gaps)), by_test={"cuda:0": test}, by_fixtures=by_fixtures)


def leak(name, size, device="cuda:0", kind="test"):
    return Leak(kind=kind, name=name, device=device, source="torch", leaked_bytes=size, threshold_bytes=MiB)


def test_a_victim_s_report_says_what_was_held_and_by_whom():
    fixtures = [("model", "module", "cuda:0", 3 * GiB), ("tokenizer", "session", "cuda:0", GiB)]
    text = victim_text(
        OOM,
        held(reading(8 * GiB, 8 * GiB + 256 * MiB), test=GiB, fixtures=fixtures),
        [leak("test_x", 2 * GiB), leak("test_y", 100 * MiB), leak("elsewhere", GiB, "cuda:1")],
        Elsewhere(
            sentences=("other processes use it: pid 12 python serve.py (user ann): 4.0 GiB",), held_bytes=4 * GiB
        ),
    )
    assert text.splitlines() == [
        "gpuclean: ran out of memory on cuda:0: asked for 2.0 GiB",
        "  this process held 8.0 GiB on cuda:0, and 256.0 MiB more in its cache, as torch says",
        "    4.0 GiB by live fixtures: 'model' (module scope) 3.0 GiB, 'tokenizer' (session scope) 1.0 GiB",
        "    2.1 GiB leaked before it, as far as it was not freed since: test_x 2.0 GiB, test_y 100.0 MiB",
        "    1.0 GiB since this test began: its own",
        "    924.0 MiB from before, by nobody who is known",
        "  other processes use it: pid 12 python serve.py (user ann): 4.0 GiB",
        "  give fixture 'model' (module scope) a narrower scope, or free what it does not need any more",
        "  or run it again after a comprehensive cleanup: --gpu-oom-retry=1",
    ]


def test_what_others_hold_is_the_advice_where_it_is_the_most():
    own = held(reading(GiB), test=GiB)
    text = victim_text(OOM, own, [], Elsewhere(sentences=("others",), held_bytes=2 * GiB))
    advice = 'other processes hold the most: @pytest.mark.gpu_require(free="2.0GiB") waits for them, and'
    assert f"\n  others\n  {advice} --gpu-assign gives each worker a card of its own\n" in text
    assert "others hold" not in victim_text(OOM, own, [], Elsewhere(held_bytes=GiB // 2))


@pytest.mark.parametrize(
    ("holdings", "leaks", "advice"),
    [
        (held(reading(8 * GiB), test=7 * GiB), [], "make the test smaller"),
        (held(reading(8 * GiB), test=GiB), [leak("test_x", 6 * GiB)], "free what test_x leaked"),
        (held(reading(8 * GiB), fixtures=[("model", "module", "cuda:0", 7 * GiB)]), [], "give fixture 'model'"),
        (held(reading(8 * GiB), test=GiB), [], "tests before it kept that"),
        (held(reading(4 * GiB, 7 * GiB), test=4 * GiB), [], "its cache has as much"),
        (held(), [], "make the test smaller"),
    ],
)
def test_the_advice_is_about_whoever_holds_the_most(holdings, leaks, advice):
    assert f"\n  {advice}" in victim_text(OOM, holdings, leaks)


def test_what_could_not_be_measured_is_said():
    text = victim_text(OOM, held(gaps=[Unavailable("torch cuda:0", "CUDA error: unknown error")]), [])
    assert "  not measured: torch cuda:0: CUDA error: unknown error\n" in text
    assert "0 B" not in text


def test_without_a_window_nothing_is_called_nobody_s():
    text = victim_text(OOM, Holdings(snapshot=Snapshot((reading(8 * GiB),))), [])
    assert "nobody" not in text
    assert "this process held 8.0 GiB" in text


def test_many_holders_are_counted():
    leaks = [leak(f"test_{n}", n * 10 * MiB) for n in range(1, 6)]
    assert "test_5 50.0 MiB, test_4 40.0 MiB, test_3 30.0 MiB, and 2 more\n" in victim_text(
        OOM, held(reading(GiB)), leaks
    )


def test_a_peak_holds_nothing():
    assert "leaked" not in victim_text(OOM, held(reading(GiB), test=GiB), [leak("test_x", GiB, kind="peak")])


@pytest.mark.parametrize(
    ("said", "device", "same"),
    [
        ("cuda:0", "cuda:0", True),
        ("cuda:1", "cuda:10", False),
        ("cuda", "cuda:1", True),
        ("cuda", "cudagraph:1", False),
        ("", "xpu:0", True),
        ("", "cpu", False),
        ("cpu", "cpu", True),
        ("mps", "mps", True),
    ],
)
def test_the_device_of_an_error(said, device, same):
    assert is_same_device(said, device) is same


def lost(test="test_a", device="cuda:0"):
    return DeviceFailure(test=test, kind="lost", device=device, error="AcceleratorError: CUDA error: x")


def test_a_lost_device_is_told_with_what_to_do():
    text = lost_text(lost(), with_option=True)
    assert text.startswith("gpuclean: cuda:0 is lost since this test: AcceleratorError: CUDA error: x\n")
    assert "--gpu-on-lost" in text
    assert "--gpu-on-lost" not in lost_text(lost(), with_option=False)
    consequence = dataclasses.replace(lost("test_b"), kind="consequence", cause="test_a")
    assert consequence_text(consequence).startswith("gpuclean: a consequence of test_a: cuda:0 is lost since then (")


def test_the_summary_counts_the_consequences_of_each():
    def consequence(test, cause, device="cuda:0"):
        return DeviceFailure(test=test, kind="consequence", device=device, error="x", cause=cause)

    failures = [
        lost("test_a"),
        lost("test_m", "cuda:1"),
        consequence("test_b", "test_a"),
        consequence("test_c", "test_a"),
        consequence("test_n", "test_m", "cuda:1"),
        OOM,
        dataclasses.replace(OOM, test="test_c", asked_bytes=None, device="cpu", retries=2, outcome="passed"),
    ]
    assert list(failure_lines(failures)) == [
        "LOST cuda:0 since test_a: AcceleratorError: CUDA error: x",
        "  2 failures are consequences of it",
        "LOST cuda:1 since test_m: AcceleratorError: CUDA error: x",
        "  1 failure is a consequence of it",
        "OOM test_b.py::test_big: out of memory on cuda:0, asked for 2.0 GiB",
        "OOM test_c: out of memory in host memory; retried 2 times after running out of memory: passed",
    ]


def test_a_failure_crosses_a_process():
    failure = dataclasses.replace(OOM, retries=1, outcome="passed")
    assert DeviceFailure.from_wire(failure.to_wire()) == failure
    assert failure.retried == "retried after running out of memory: passed"
