"""The engine beside a plain model of what DESIGN.md says, on random suites."""

import gc
import os
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_gpuclean.engine import Ending, Engine, Terms
from pytest_gpuclean.ladder import Kept
from pytest_gpuclean.memory.gauge import Gauge
from pytest_gpuclean.memory.torch import TorchProbe
from pytest_gpuclean.units import KiB, MiB
from unit.fakes import setting_up
from unit.gate_model import Reference

TERMS = Terms(threshold_bytes=MiB)
SIZES = st.sampled_from([256 * KiB, 512 * KiB, MiB, 2 * MiB, 5 * MiB])
SCOPES = ("session", "module", "class")


@dataclass(frozen=True)
class Fixture:
    name: str
    scope: str
    value: int
    """In bytes, given back at its end."""
    kept: int
    """In bytes, never given back."""
    fails: bool
    """Whether its setup raises, after all that."""


@dataclass(frozen=True)
class Case:
    uses: tuple[str, ...]
    actions: tuple[tuple, ...]
    cls: int


@dataclass(frozen=True)
class Plan:
    fixtures: tuple[Fixture, ...]
    modules: tuple[tuple[Case, ...], ...]


@st.composite
def plans(draw):
    names = draw(st.lists(st.sampled_from("abcd"), unique=True, max_size=3))
    fixtures = tuple(
        Fixture(
            name,
            draw(st.sampled_from(SCOPES)),
            value=draw(SIZES),
            kept=draw(st.one_of(st.just(0), SIZES)),
            fails=draw(st.sampled_from([False, False, False, True])),
        )
        for name in names
    )
    working = [fixture.name for fixture in fixtures if not fixture.fails]
    keeping = [
        st.tuples(st.just("keep"), SIZES),
        st.tuples(st.just("use"), SIZES),
        st.tuples(st.just("cycle"), SIZES),
        st.tuples(st.just("pin"), SIZES),
    ]
    freeing = [st.tuples(st.just("free"), st.integers(0, 3)), st.tuples(st.just("use"), SIZES)]
    if working:
        keeping.append(st.tuples(st.just("add"), SIZES, st.sampled_from(working)))
        freeing.append(st.tuples(st.just("drop"), st.sampled_from(working)))
    case = st.builds(
        Case,
        uses=st.lists(st.sampled_from(names), unique=True).map(tuple) if names else st.just(()),
        actions=st.one_of(st.lists(st.one_of(keeping), max_size=3), st.lists(st.one_of(freeing), max_size=2)).map(
            tuple
        ),
        cls=st.integers(0, 1),
    )
    modules = st.lists(st.lists(case, min_size=1, max_size=4).map(tuple), min_size=1, max_size=3).map(tuple)
    return Plan(fixtures, draw(modules))


@dataclass
class Run:
    """A suite on the simulated accelerator, through the engine and through the model at once."""

    plan: Plan
    torch: object
    engine: Engine = None
    reference: Reference = field(default_factory=lambda: Reference(MiB))
    up: dict = field(default_factory=dict)
    """The values of live fixtures: lists of pairs of a tensor and its buffer."""
    kept: list = field(default_factory=list)
    pinned: list = field(default_factory=list)
    failed: set = field(default_factory=set)

    def __post_init__(self):
        self.engine = Engine(
            Gauge("device", [TorchProbe()]), settle_seconds=0, threshold_bytes=MiB, fixture_values=self.values
        )

    def values(self, keys):
        return [
            (key, [[tensor for tensor, _ in self.up[key]]]) for key in keys if key in self.up and key not in self.failed
        ]

    def let_go(self, kept):
        if kept in (Kept.OF_ENDED, Kept.MEMORY_OF_ENDED):  # what it pins is the test's own
            return
        for _, buffer in self.pinned:
            self.reference.free(buffer)
        self.pinned.clear()

    def allocate(self, size, fixture=None):
        tensor = self.torch.empty(size, dtype=self.torch.uint8, device="simgpu:0")
        return tensor, self.reference.make(size, self.module, fixture)

    def go(self):
        for number, cases in enumerate(self.plan.modules):
            for place, case in enumerate(cases if not self.reference.is_open else ()):
                rest = cases[place + 1 :]
                ends_session = not rest and number == len(self.plan.modules) - 1
                yield from self.go_through(number, place, case, rest[0] if rest else None, ends_session)

    def go_through(self, number, place, case, following, ends_session):
        self.module, test = f"test_{number}.py", f"test_{number}.py::test_{place}"
        self.reference.begin_test(self.module)
        self.engine.open(test, self.module, TERMS, self.let_go)
        wanted = [fixture for scope in SCOPES for fixture in self.plan.fixtures if fixture.scope == scope]
        works = all(self.set_up(fixture) for fixture in wanted if fixture.name in case.uses)
        if works:
            self.call(case)
        self.reference.told.clear()
        ending = [] if following is not None and following.cls == case.cls else ["class"]
        ending += ["module"] if following is None else []
        ending += ["session"] if ends_session else []
        # What the runner pins of the test goes before anything is judged, whenever the engine asks for that.
        pinned = [buffer for _, buffer in self.pinned]
        for buffer in pinned:
            self.reference.free(buffer)
        self.reference.end_test_itself(test)
        for fixture in reversed([each for each in wanted if each.name in self.up and each.scope in ending]):
            self.release(fixture)
        if "module" in ending:
            self.reference.end_module(self.module)
        if ends_session:
            self.reference.end_session()
        record = self.engine.close(Ending(module="module" in ending, session=ends_session))
        self.let_go(Kept.ALL)
        assert not record.problems
        if self.reference.is_open:
            return
        yield test, [(leak.kind, leak.name, leak.leaked_bytes) for leak in record.leaks], list(self.reference.told)

    def set_up(self, fixture):
        if fixture.name in self.up:
            return not fixture.fails
        with setting_up(self.engine, fixture.name, fixture.name, fixture.scope):
            value = [self.allocate(fixture.value, fixture.name)]
            if fixture.kept:
                self.kept.append(self.allocate(fixture.kept, fixture.name))
            self.up[fixture.name] = value
        if fixture.fails:  # the runner keeps the error, whose frames hold what the setup had made, to its end
            self.failed.add(fixture.name)
        return not fixture.fails

    def release(self, fixture):
        self.engine.fixture_release(fixture.name, in_teardown=True)
        self.failed.discard(fixture.name)
        for _, buffer in self.up.pop(fixture.name):
            self.reference.free(buffer)
        self.reference.end_fixture(fixture.name, self.module)

    def forget(self):
        """Leave nothing on the device for the next run to find."""
        self.kept.clear()
        self.pinned.clear()
        self.up.clear()
        gc.collect()

    def call(self, case):
        for name, *details in case.actions:
            getattr(self, name)(*details)

    def keep(self, size):
        self.kept.append(self.allocate(size))

    def use(self, size):
        self.reference.free(self.allocate(size)[1])

    def cycle(self, size):
        tensor, buffer = self.allocate(size)
        held = [tensor]
        held.append(held)
        self.reference.free(buffer)

    def pin(self, size):
        self.pinned.append(self.allocate(size))

    def add(self, size, name):
        if name in self.up:
            tensor = self.torch.empty(size, dtype=self.torch.uint8, device="simgpu:0")
            self.up[name].append((tensor, self.reference.add(size, self.module, name)))

    def free(self, index):
        if index < len(self.kept):
            _, buffer = self.kept.pop(index)
            # Of what a live fixture keeps outside of its value, numbers do not tell that it was the fixture's.
            self.reference.is_open |= any(buffer in owned for owned in self.reference.of_fixture.values())
            self.reference.free(buffer)

    def drop(self, name):
        if len(self.up.get(name, ())) > 1:
            _, buffer = self.up[name].pop()
            self.reference.is_open |= buffer.size <= MiB  # nobody looks for so little
            self.reference.free(buffer)


@pytest.fixture(scope="module")
def little_heap():
    """Let collections look at what the runs make alone."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


_IS_LONG = os.environ.get("GPUCLEAN_FAULTS") == "all"


@settings(
    max_examples=1000 if _IS_LONG else 40,
    derandomize=not _IS_LONG,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
@given(plan=plans())
def test_the_gate_tells_what_the_model_tells(simgpu, little_heap, plan):
    import torch

    run = Run(plan, torch)
    try:
        for test, told, expected in run.go():
            assert sorted(told) == sorted(expected), test
    finally:
        run.forget()


def test_a_small_fixture_excuses_no_leak_of_a_test(simgpu, little_heap):
    import torch

    fixtures = tuple(Fixture(name, "module", value=MiB, kept=0, fails=False) for name in "abc")
    run = Run(Plan(fixtures, ((Case(("a", "b", "c"), (("keep", 2 * MiB),), 0),),)), torch)
    try:
        assert [told for _, told, _ in run.go()] == [[("test", "test_0.py::test_0", 2 * MiB)]]
    finally:
        run.forget()
