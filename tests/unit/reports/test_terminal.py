"""The text for people: first the fact with its figure."""

import pytest

from pytest_gpuclean.model.cleanup import CleanupResult, StepResult
from pytest_gpuclean.model.leaks import Leak
from pytest_gpuclean.model.records import RunReport, TestRecord
from pytest_gpuclean.reports.terminal import header_line, leak_headline, leak_text, stage_lines, summary_lines
from pytest_gpuclean.units import MiB


def leak(kind="test", name="test_a.py::test_x", size=64 * MiB, **more):
    values = {"device": "cuda:0", "source": "torch", "threshold_bytes": MiB, **more}
    return Leak(kind=kind, name=name, leaked_bytes=size, **values)


@pytest.mark.parametrize(
    ("told", "headline"),
    [
        (leak(), "gpuclean: leaked 64.0 MiB on cuda:0 (threshold 1.0 MiB)"),
        (
            leak("fixture", "model", scope="module"),
            "gpuclean: fixture 'model' (module scope) leaked 64.0 MiB on cuda:0 (threshold 1.0 MiB)",
        ),
        (
            leak("module", "test_x.py", 18 * MiB, tests=20),
            "gpuclean: module test_x.py leaked 18.0 MiB over 20 tests on cuda:0 (threshold 1.0 MiB)",
        ),
        (
            leak("session", "the whole run", tests=300),
            "gpuclean: the whole run leaked 64.0 MiB over 300 tests on cuda:0 (threshold 1.0 MiB)",
        ),
        (leak("peak", size=9 * MiB), "gpuclean: peak 9.0 MiB on cuda:0 (limit 1.0 MiB)"),
    ],
)
def test_the_first_line_is_the_fact(told, headline):
    assert leak_headline(told) == headline
    assert leak_text(told).splitlines()[0] == headline


@pytest.mark.parametrize("kind", ["test", "fixture", "module", "session", "peak"])
def test_the_last_line_says_what_to_do(kind):
    last = leak_text(leak(kind)).splitlines()[-1]
    assert "pytest.mark.gpu_l" in last or "find the cache" in last


def test_a_leak_of_host_memory_is_called_tensors_and_arrays():
    assert "live tensors and arrays in host memory" in leak_text(leak(device="cpu", source="arrays"))
    assert "still allocated in torch" in leak_text(leak())


def test_a_note_stands_between_the_fact_and_the_advice():
    lines = leak_text(leak(note="its allowance ran out")).splitlines()
    assert "  its allowance ran out" in lines[1:-1]


def test_no_message_exclaims():
    for kind in ("test", "fixture", "module", "session", "peak"):
        assert "!" not in leak_text(leak(kind))


def cleanup(*steps, before=None, after=None):
    return CleanupResult(level="quick", steps=steps, before=before or {}, after=after or {}, seconds=0.02)


def test_a_stage_line_says_what_was_done_and_what_came_back():
    record = TestRecord(
        test="t",
        cleanups=(
            cleanup(
                StepResult(
                    name="garbage",
                    status="done",
                    detail="3 objects collected",
                    seconds=0.018,
                    given_back={"cuda:0": 4 * MiB},
                ),
                StepResult(name="torch cache", status="skipped", detail="no"),
                StepResult(name="mine", status="failed", detail="ValueError: no", seconds=0.0004),
                before={"cuda:0": 4 * MiB},
                after={"cuda:0": 0},
            ),
        ),
    )
    assert list(stage_lines(record)) == [
        "  gpuclean garbage: 3 objects collected, cuda:0 -4.0 MiB, 18 ms",
        "  gpuclean mine: failed: ValueError: no, 0.4 ms",
        "  gpuclean quick cleanup: cuda:0 4.0 MiB -> 0 B in 20 ms",
    ]


def test_a_run_with_nothing_to_say_has_no_summary():
    report = RunReport()
    report.add(TestRecord(test="clean", seconds=0.1))
    assert summary_lines(report, 10.0, {}) == []


def test_the_summary_has_a_line_for_each_leak_and_each_trouble():
    report = RunReport()
    report.add(TestRecord(test="test_a.py::test_x", leaks=(leak(), leak(allowed="known"), leak(kept_once="kept once"))))
    report.add(TestRecord(test="test_b.py::test_y", problems=("mine failed: ValueError: no",), leaks=(leak("peak"),)))
    lines = summary_lines(report, 0, {"nvml": "no driver"})
    assert lines[:7] == [
        "LEAK test_a.py::test_x: leaked 64.0 MiB on cuda:0 (threshold 1.0 MiB)",
        "ALLOWED test_a.py::test_x: leaked 64.0 MiB on cuda:0 (threshold 1.0 MiB)",
        "  allowed: known",
        "KEPT test_a.py::test_x: leaked 64.0 MiB on cuda:0 (threshold 1.0 MiB)",
        "  kept once",
        "PEAK test_b.py::test_y: peak 64.0 MiB on cuda:0 (limit 1.0 MiB)",
        "TROUBLE test_b.py::test_y: mine failed: ValueError: no",
    ]
    assert "not measured: nvml: no driver" in lines


def test_the_summary_tells_what_the_plugin_cost():
    report = RunReport(seconds=0.5, given_back_bytes=MiB, cleanups=3)
    lines = summary_lines(report, 100.0, {})
    assert "given back: 1.0 MiB in 3 cleanups" in lines
    assert lines[-1] == "cost: 500 ms (0.5 % of the run)"


def test_the_cost_of_leaks_is_told_apart_from_that_of_all_other_tests():
    report = RunReport()
    report.add(TestRecord(test="test_clean", seconds=0.1))
    report.add(TestRecord(test="test_trouble", seconds=0.2, problems=("mine failed",)))
    report.add(TestRecord(test="test_leaks", seconds=1.5, leaks=(leak(),)))
    assert summary_lines(report, 10.0, {})[-1] == "cost: 1.80 s (18.0 % of the run), 1.50 s of it in 1 test with leaks"
    report.add(TestRecord(test="test_leaks", seconds=0.5, leaks=(leak(allowed="why"),)))  # another attempt
    report.add(TestRecord(test="test_leaks_too", seconds=1.0, leaks=(leak(), leak())))
    assert summary_lines(report, 0, {})[-1] == "cost: 3.30 s, 3.00 s of it in 2 tests with leaks"


def test_the_header_says_what_runs_and_what_is_missing():
    assert header_line(["quick cleaning after each test", "watching devices"], [("nvml", "no driver")]) == (
        "gpuclean: quick cleaning after each test; watching devices; not measured: nvml (no driver)"
    )
