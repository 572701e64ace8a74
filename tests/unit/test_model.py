"""The data: what crosses a process comes back the same, and what is told reads well."""

import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_gpuclean.model import Unavailable
from pytest_gpuclean.model.cleanup import CleanupResult, StepResult
from pytest_gpuclean.model.leaks import Content, Explanation, Holder, Leak
from pytest_gpuclean.model.memory import Account, Reading, Snapshot
from pytest_gpuclean.model.processes import LeftProcess
from pytest_gpuclean.model.records import RunReport, TestRecord
from pytest_gpuclean.units import MiB

SIZES = st.dictionaries(st.text(max_size=8), st.integers(-(2**60), 2**60), max_size=3)
SECONDS = st.floats(0, 1e6, allow_nan=False)
STEPS = st.builds(
    StepResult,
    name=st.text(max_size=8),
    status=st.sampled_from(["done", "skipped", "failed"]),
    detail=st.text(max_size=20),
    seconds=SECONDS,
    given_back=SIZES,
)
CLEANUPS = st.builds(
    CleanupResult,
    level=st.sampled_from(["quick", "comprehensive"]),
    steps=st.lists(STEPS, max_size=3).map(tuple),
    before=SIZES,
    after=SIZES,
    seconds=SECONDS,
)
CONTENTS = st.builds(
    Content,
    type_name=st.text(max_size=8),
    dtype=st.text(max_size=8),
    shape=st.lists(st.integers(0, 2**40), max_size=3).map(tuple),
    device=st.text(max_size=8),
    count=st.integers(0, 10**6),
    held_bytes=st.integers(0, 2**60),
    made_at=st.text(max_size=8),
)
HOLDERS = st.builds(
    Holder,
    kind=st.text(max_size=8),
    chain=st.text(max_size=20),
    cause=st.text(max_size=8),
    held_bytes=st.integers(0, 2**60),
    count=st.integers(0, 10**6),
    detail=st.text(max_size=8),
)
EXPLANATIONS = st.builds(
    Explanation,
    contents=st.lists(CONTENTS, max_size=2).map(tuple),
    holders=st.lists(HOLDERS, max_size=2).map(tuple),
    explained_bytes=st.integers(0, 2**60),
    unexplained=st.text(max_size=8),
    left=st.lists(st.text(max_size=8), max_size=2).map(tuple),
    cut=st.text(max_size=8),
    seconds=SECONDS,
)
LEAKS = st.builds(
    Leak,
    kind=st.sampled_from(["test", "fixture", "module", "session", "peak"]),
    name=st.text(max_size=20),
    device=st.text(max_size=8),
    source=st.text(max_size=8),
    leaked_bytes=st.integers(0, 2**60),
    threshold_bytes=st.integers(0, 2**60),
    scope=st.sampled_from(["", "class", "module", "session"]),
    tests=st.integers(0, 10**6),
    allowed=st.text(max_size=8),
    kept_once=st.text(max_size=8),
    note=st.text(max_size=8),
    explanation=st.none() | EXPLANATIONS,
)
LEFT = st.builds(
    LeftProcess,
    pid=st.integers(2, 2**22),
    name=st.text(max_size=8),
    command=st.text(max_size=20),
    started_by=st.text(max_size=8),
    ended_by=st.sampled_from(["SIGINT", "SIGTERM", "SIGKILL", "itself", "shut down", ""]),
    seconds=SECONDS,
    ports=st.lists(st.integers(1, 65535), max_size=3).map(tuple),
    gpu_bytes=st.none() | st.integers(0, 2**60),
    reason=st.text(max_size=20),
)
RECORDS = st.builds(
    TestRecord,
    test=st.text(max_size=20),
    leaks=st.lists(LEAKS, max_size=2).map(tuple),
    cleanups=st.lists(CLEANUPS, max_size=2).map(tuple),
    problems=st.lists(st.text(max_size=20), max_size=2).map(tuple),
    given_back_bytes=st.integers(0, 2**60),
    seconds=SECONDS,
    assigned=st.text(max_size=8),
)


@given(LEAKS)
def test_a_leak_comes_back_the_same_from_json(leak):
    assert Leak.from_wire(json.loads(json.dumps(leak.to_wire()))) == leak


@given(LEFT)
def test_a_left_process_comes_back_the_same_from_json(left):
    assert LeftProcess.from_wire(json.loads(json.dumps(left.to_wire()))) == left


@given(RECORDS)
def test_a_record_comes_back_the_same_from_json(record):
    assert TestRecord.from_wire(json.loads(json.dumps(record.to_wire()))) == record


@given(RECORDS)
def test_what_goes_on_the_wire_is_builtins_alone(record):
    # pytest-xdist's own serialiser takes exactly these, and no subclass of them.
    allowed = {dict, list, tuple, str, int, float, bool, type(None)}

    def kinds(value):
        yield type(value)
        if isinstance(value, dict):
            for key, inner in value.items():
                yield from kinds(key)
                yield from kinds(inner)
        elif isinstance(value, (list, tuple)):
            for inner in value:
                yield from kinds(inner)

    assert set(kinds(record.to_wire())) <= allowed


def reading(device="cuda:0", source="torch", allocated=4 * MiB, reserved=20 * MiB, **more):
    return Reading(device=device, source=source, allocated_bytes=allocated, reserved_bytes=reserved, **more)


def test_data_is_frozen():
    for value in (reading(), Unavailable("nvml", "no driver"), Snapshot(), StepResult(name="x", status="done"), leak()):
        name = value.__slots__[0]
        with pytest.raises(AttributeError):
            setattr(value, name, "other")


def test_what_is_judged_is_what_was_asked_for_where_that_is_known():
    assert reading().held_bytes == 4 * MiB
    assert reading(requested_bytes=3 * MiB).held_bytes == 3 * MiB
    assert reading(requested_bytes=0).held_bytes == 0


def test_a_reading_belongs_to_the_account_of_its_device_and_source():
    assert reading("cuda:1", "cupy").account == Account("cuda:1", "cupy")


def test_a_snapshot_sums_a_device_over_its_frameworks():
    snapshot = Snapshot((reading(), reading(source="cupy", allocated=MiB), reading("cuda:1", allocated=7)))
    assert snapshot.allocated_bytes("cuda:0") == 5 * MiB
    assert snapshot.allocated_bytes("cuda:1") == 7


def test_a_device_that_nobody_used_is_not_0_bytes():
    assert Snapshot().allocated_bytes("cuda:0") == Unavailable("cuda:0", "no framework has used this device yet")


def test_a_device_that_could_not_be_read_says_why():
    snapshot = Snapshot((), (Unavailable("torch cuda:0", "device lost"), Unavailable("jax", "no statistics")))
    assert snapshot.allocated_bytes("cuda:0") == Unavailable("cuda:0", "torch cuda:0: device lost; jax: no statistics")


def test_a_snapshot_reads_as_one_line_a_source():
    snapshot = Snapshot((reading(),), (Unavailable("jax", "no statistics"),))
    assert str(snapshot) == "cuda:0 torch: 4.0 MiB allocated, 20.0 MiB reserved\njax: not measured, no statistics"
    assert str(Snapshot()) == "nothing in use"


def test_a_cleanup_adds_up_what_devices_have_back():
    result = CleanupResult(
        level="quick", before={"cuda:0": 10, "cuda:1": 5, "cuda:2": 3}, after={"cuda:0": 4, "cuda:1": 9}
    )
    assert result.given_back_bytes == 6 + 0 + 3


def test_a_cleanup_reads_as_one_line_a_step_that_did_something_or_failed():
    result = CleanupResult(
        level="quick",
        steps=(
            StepResult(
                name="garbage",
                status="done",
                detail="3 objects collected",
                seconds=0.018,
                given_back={"cuda:0": 4 * MiB},
            ),
            StepResult(name="torch cache", status="skipped", detail="torch is not loaded"),
            StepResult(name="mine", status="failed", detail="ValueError: no", seconds=0.0004),
        ),
    )
    assert str(result).splitlines() == [
        "garbage: 3 objects collected, cuda:0 -4.0 MiB, 18 ms",
        "mine: failed: ValueError: no, 0.4 ms",
    ]
    assert [step.name for step in result.failed] == ["mine"]


def leak(**more):
    return Leak(
        kind="test", name="t", device="cuda:0", source="torch", leaked_bytes=4 * MiB, threshold_bytes=MiB, **more
    )


def test_a_leak_is_excused_by_an_allowance_or_where_it_does_not_grow():
    assert not leak().excused
    assert not leak(note="its allowance ran out").excused
    assert leak(allowed="known").excused
    assert leak(known="leaks.json").excused
    assert leak(kept_once="kept once").excused


def test_a_run_counts_clean_tests_and_keeps_the_records_of_the_others_alone():
    report = RunReport()
    for _ in range(1000):
        report.add(TestRecord(test="clean", seconds=0.5, given_back_bytes=2))
    report.add(TestRecord(test="leaks", leaks=(leak(),)))
    report.add(TestRecord(test="trouble", problems=("x",), cleanups=(CleanupResult(level="quick"),)))
    assert (report.tests, report.seconds, report.given_back_bytes, report.cleanups) == (1002, 500.0, 2000, 1)
    assert [record.test for record in report.records] == ["leaks", "trouble"]


def test_data_can_be_pickled():
    for value in (reading(), Snapshot((reading(),)), leak(), TestRecord(test="t", leaks=(leak(),))):
        assert pickle.loads(pickle.dumps(value)) == value
