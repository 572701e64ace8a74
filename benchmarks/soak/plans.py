"""What a run of the loop is, drawn from a seed: how many workers, how tests are handed out, which ones die and how."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

DISTRIBUTIONS = ("load", "worksteal")
BY_SCOPE = ("loadfile", "loadscope")
"""Where nothing dies: xdist 3.8 hands the test that has killed a worker to the next one there, and may then hang."""
PHASES = ("setup", "call", "teardown")
DEATHS = ("exit", "kill", "kill from a thread")
COMPANIONS = ("", "", "child", "orphan", "shared memory", "busy thread", "memory")
ORDINARY = ("nothing", "nothing", "nothing", "memory", "failure", "child", "orphan", "thread", "error")
OPTIONS = (
    ("--gpu-clean=quick",),
    ("--gpu-clean=comprehensive",),
    ("--gpu-clean=quick", "--gpu-leak=fail", "--gpu-leak-watch=host"),
    ("--gpu-clean=comprehensive", "--gpu-processes=fail"),
)
OUTCOMES = {"failure": "failed", "error": "error"}
LEFT = {"child", "orphan"}
"""What is left by a test that lives, and fails it where --gpu-processes=fail is said."""


@dataclass(frozen=True, slots=True)
class TestPlan:
    """What one test does."""

    does: str
    """Something ordinary; empty where it dies."""
    death: str = ""
    phase: str = ""
    companion: str = ""
    """What is alive when it dies."""
    status: int = 0
    """What it exits with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPlan:
    """One run of pytest under xdist."""

    number: int
    workers: int
    distribution: str
    options: tuple[str, ...]
    framework: str
    """What its tests import: `torch` or `numpy`."""
    tests: Mapping[str, TestPlan]
    """By node id."""
    killed_after_seconds: float | None
    """When the process that hands the tests out is killed, if it is."""

    @property
    def deaths(self) -> int:
        """How many of its tests die."""
        return sum(bool(test.death) for test in self.tests.values())

    @property
    def daemons(self) -> int:
        """How many of its tests leave a daemon."""
        return sum("orphan" in (test.does, test.companion) for test in self.tests.values())

    def outcomes(self) -> dict[str, str]:
        """Say what has to become of each test."""
        fails = "--gpu-processes=fail" in self.options
        return {
            name: "died"
            if test.death
            else "error"
            if fails and test.does in LEFT
            else OUTCOMES.get(test.does, "passed")
            for name, test in self.tests.items()
        }


def draw(seed: int, number: int) -> RunPlan:
    """Draw the run of a number; the same seed and number give the same run."""
    rng = random.Random(f"{seed}:{number}")
    modules, a_module = rng.randint(1, 4), rng.randint(4, 12)
    names = [f"test_{module}.py::test[{test}]" for module in range(modules) for test in range(a_module)]
    dying = set(rng.sample(names, k=min(len(names), rng.choice((0, 1, 1, 2, 3, 5)))))
    distributions = DISTRIBUTIONS if dying else DISTRIBUTIONS + BY_SCOPE
    return RunPlan(
        number=number,
        workers=rng.choice((1, 2, 2, 3)),
        distribution=rng.choice(distributions),
        options=rng.choice(OPTIONS),
        framework=rng.choice(("numpy", "numpy", "numpy", "torch")),
        tests={name: _dying(rng) if name in dying else TestPlan(rng.choice(ORDINARY)) for name in names},
        killed_after_seconds=rng.uniform(0.5, 3.0) if rng.random() < 0.1 else None,
    )


def of_deaths(deaths: int) -> RunPlan:
    """Give a run in which one test in three dies, to see what each death costs."""
    killed = TestPlan("", "kill", "call", "child")
    names = [f"test_0.py::test[{test}]" for test in range(3 * deaths)]
    return RunPlan(
        number=-1,
        workers=2,
        distribution="load",
        options=OPTIONS[0],
        framework="numpy",
        tests={name: killed if at % 3 == 1 else TestPlan("nothing") for at, name in enumerate(names)},
        killed_after_seconds=None,
    )


def calm(tests: int) -> RunPlan:
    """Give a run in which nothing happens."""
    names = [f"test_{at % 4}.py::test[{at // 4}]" for at in range(tests)]
    return RunPlan(
        number=-2,
        workers=2,
        distribution="load",
        options=OPTIONS[0],
        framework="numpy",
        tests=dict.fromkeys(names, TestPlan("nothing")),
        killed_after_seconds=None,
    )


def write(plan: RunPlan, folder: Path) -> None:
    """Write the tests of a run into a folder."""
    modules: dict[str, dict[str, list[object]]] = {}
    for name, test in plan.tests.items():
        module, _, rest = name.partition("::test[")
        modules.setdefault(module, {})[rest.rstrip("]")] = [
            *(test.does, test.death, test.phase, test.companion, test.status)
        ]
    for module, tests in modules.items():
        (folder / module).write_text(MODULE.format(framework=plan.framework, plan=json.dumps(tests)))
    (folder / "pytest.ini").write_text("[pytest]\n")


MODULE = """\
import {framework}
import json
import pytest

from benchmarks.soak import dying

PLAN = json.loads('''{plan}''')


@pytest.fixture(scope="module")
def model():
    return bytearray(1 << 20)


@pytest.fixture
def course(request, number):
    test = dying.Course(*PLAN[number])
    test.at("setup")
    yield test
    test.at("teardown")


@pytest.mark.parametrize("number", PLAN)
def test(number, model, course):
    course.at("call")
"""


def _dying(rng: random.Random) -> TestPlan:
    return TestPlan(
        "", rng.choice(DEATHS), rng.choice(PHASES), rng.choice(COMPANIONS), rng.choice((0, 1, 3, 5, 70, 255))
    )
