"""A report with something of everything, and texts that no format may take for its own markup."""

from pytest_gpuclean.model.leaks import Content, Explanation, Holder, Leak
from pytest_gpuclean.model.processes import LeftProcess
from pytest_gpuclean.reports.data import Aside, DeviceUse, FixtureSpan, Report, Run, Shard, StepTotal, TestEntry
from pytest_gpuclean.units import MiB

HOSTILE = (
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "`|`` @octocat #1 [a](javascript:alert(1)) ![x](http://example.com/x.png)",
    "a\r\n::error::injected\n## heading\n| a | b |",
    "\x1b[31mred\x1b[0m \x07 \u202e\u2066 \udc80 \x00 \u2028",
    "-->]]>&amp;&#124;%0A%25",
    "a\\|b\\",
)


def leak(test="test_a.py::test_it", **more):
    figures = {"kind": "test", "device": "cuda:0", "source": "torch", "leaked_bytes": 4 * MiB, "threshold_bytes": MiB}
    return Leak(**{**figures, "name": test, **more})


def explanation(chain="test_a.CACHE[3]", held_bytes=4 * MiB, **more):
    content = Content(
        type_name="Tensor", dtype="float32", shape=(1024, 1024), device="cuda:0", count=1, held_bytes=held_bytes
    )
    holder = Holder(kind="module global", chain=chain, cause="module-global", held_bytes=held_bytes, count=1)
    return Explanation(contents=(content,), holders=(holder,), explained_bytes=held_bytes, **more)


def left(**more):
    figures = {"pid": 12, "name": "TensorBoard", "command": "tensorboard --logdir …", "ended_by": "SIGINT"}
    return LeftProcess(**{**figures, "ports": (6006,), **more})


def use(begin=0, end=0, peak=None, device="cuda:0"):
    return DeviceUse(device=device, begin_bytes=begin, end_bytes=end, reserved_bytes=end, peak_bytes=peak)


def entry(test="test_a.py::test_it", outcome="passed", **more):
    return TestEntry(test=test, outcome=outcome, started_at=1.0, seconds=0.5, **more)


def run(*tests, **more):
    return Run(**{"id": "one", "started_at": 1.0, "seconds": 2.0, "exit_status": 0, "tests": tests, **more})


def whole_report():
    """Something in every field."""
    tests = (
        entry(memory=(use(0, 4 * MiB, 64 * MiB), use(device="cpu")), given_back_bytes=MiB, cost_seconds=0.01),
        entry("test_a.py::test_leaks", "error", leaks=(leak(explanation=explanation()),), file="test_a.py", line=12),
        entry("test_a.py::test_leaves", left=(left(),), problems=("a probe raised",), worker="gw1", attempt=2),
    )
    return Report(
        runs=(
            run(
                *tests,
                partial="it was interrupted",
                shard=Shard(index=1, total=3, source="--splits"),
                workers=("gw0", "gw1"),
                python="3.11.7",
                pytest="9.2.0",
                plugin="0.1.0",
                system="Linux x86_64",
                options={"gpu_clean": "quick"},
                cleanups=3,
                given_back_bytes=MiB,
                cost_seconds=0.25,
                steps=(StepTotal(name="garbage", times=2, failed=1, seconds=0.1, given_back_bytes=MiB),),
                not_measured={"nvml": "it is not there"},
                asides=(Aside(whose="a killed run", left=(left(ended_by="", reason="it is stuck"),)),),
                fixtures=(FixtureSpan(name="model", scope="module", base="test_a.py", started_at=1.0, ended_at=2.0),),
            ),
        ),
        notes=("shard 2 of 3 is missing",),
    )


def hostile_report():
    """Foreign texts in every place that takes one."""
    tests = [
        entry(
            f"test_a.py::test_it[{text}]",
            "error",
            file=text,
            line=1,
            leaks=(
                leak(text, explanation=explanation(text, unexplained=text)),
                leak(text, allowed=text, note=text),
                leak(text, kind="fixture", scope="module"),
            ),
            left=(left(name=text, command=text, reason=text, started_by=text),),
            problems=(text,),
        )
        for text in HOSTILE
    ]
    asides = tuple(Aside(whose=text, left=(left(),)) for text in HOSTILE)
    fixtures = tuple(
        FixtureSpan(name=text, scope="module", base=text, started_at=1.0, ended_at=2.0) for text in HOSTILE
    )
    steps = tuple(StepTotal(name=text, times=1) for text in HOSTILE)
    gaps = dict.fromkeys(HOSTILE, HOSTILE[0])
    more = {"asides": asides, "fixtures": fixtures, "steps": steps, "not_measured": gaps, "options": gaps}
    return Report(runs=(run(*tests, partial=HOSTILE[1], **more),), notes=HOSTILE)
