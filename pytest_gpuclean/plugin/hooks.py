"""What runs per test: each hook reads pytest's objects, calls one thing, and writes the answer back."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Collection, Generator, Iterable
from functools import partial
from typing import Any

import pytest

from pytest_gpuclean.cleanup.interface import Cleaner
from pytest_gpuclean.engine import Engine
from pytest_gpuclean.explaining import Explainer
from pytest_gpuclean.ladder import Kept
from pytest_gpuclean.memory import DEVICE_PROBES
from pytest_gpuclean.memory.gauge import Gauge
from pytest_gpuclean.memory.interface import Probe
from pytest_gpuclean.memory.sites import Sites
from pytest_gpuclean.model.leaks import Leak
from pytest_gpuclean.model.records import TestRecord
from pytest_gpuclean.plugin import retention
from pytest_gpuclean.plugin.assign import assigned_to
from pytest_gpuclean.plugin.boundaries import ends, ends_module, module_of
from pytest_gpuclean.plugin.by_hand import ByHand
from pytest_gpuclean.plugin.cards import nvml_of
from pytest_gpuclean.plugin.clock import clock_of
from pytest_gpuclean.plugin.confirm import confirm, run_quietly
from pytest_gpuclean.plugin.failing import look_into_failures
from pytest_gpuclean.plugin.fixture_roots import FixtureRoots
from pytest_gpuclean.plugin.gathering import gather
from pytest_gpuclean.plugin.guard import Guard, guard_of
from pytest_gpuclean.plugin.options import asks_for_fixture
from pytest_gpuclean.plugin.outcome import ATTEMPTS, Told, Verdicts, tell_on, tell_problems
from pytest_gpuclean.plugin.plans import Plan, plan_from, plan_of
from pytest_gpuclean.plugin.recorded_warnings import let_go_of_sources
from pytest_gpuclean.plugin.recording import recorder_for
from pytest_gpuclean.plugin.settings import Settings
from pytest_gpuclean.plugin.started import look_after_processes
from pytest_gpuclean.plugin.telling import Telling, verbosity
from pytest_gpuclean.plugin.trouble import own_problem, trouble_of
from pytest_gpuclean.processes.families.interface import Family
from pytest_gpuclean.window import Course, Ending, Terms

PLAN = pytest.StashKey[Plan]()
_RUNNER_PACKAGES = (
    "_pytest",
    "pytest",
    "pluggy",
    "xdist",
    "execnet",
    "unittest.case",
    "unittest.suite",
    "pytest_gpuclean",
)
"""Through their objects a fixture's value would reach every test of the run."""


class RunHooks:
    """The plugin of one run in one process."""

    def __init__(self, config: pytest.Config, settings: Settings, telling: Telling) -> None:
        self._config = config
        self._settings = settings
        self._concerns_all = settings.is_on
        self._only_observes = settings.only_observes
        self._may_run_again = settings.oom_retry > 0
        self._default_plan = plan_from(settings)
        self._default_terms = _terms(self._default_plan, self._default_plan)
        self._module_of: object = None
        self._module = ""
        self._test = ""
        self._guard = Guard(self._note_trouble)
        self._clock = clock_of(config)
        self._assigned = assigned_to(config)
        self._telling = telling
        self._verdicts = Verdicts(settings, telling.baseline)
        self._roots = FixtureRoots()
        self._problems: list[str] = []
        self._in_teardown = False
        self._has_failed = False
        """Whether the test raised something: its frames are let go then, as they may hold what is a fixture's."""
        self._is_reported = False
        """Whether the reports of the test that ends are made, so that nothing of it is needed any more."""
        self._error: BaseException | None = None
        """What the teardown of the test that ends raised, while its window is closed."""
        self._nextitem: pytest.Item | None = None
        gathered = partial(gather, config, tell=self._problems.append)
        probes = [*(probe() for probe in DEVICE_PROBES), *gathered("pytest_gpuclean_probes", Probe)]
        gauge = Gauge(settings.watch, probes)
        self.nvml = nvml_of(config)
        telling.watch(gauge, self.nvml)
        families = tuple(gathered("pytest_gpuclean_process_families", Family))
        self._started = look_after_processes(config, settings, families, telling, self.nvml)
        self._recorder = recorder_for(config, settings)
        self._notes_all = self._recorder.notes_all
        self._sites = Sites(is_on=settings.traces, confirms=settings.confirm)
        config.add_cleanup(partial(guard_of(config, "torch may go on to record").call, self._sites.close))
        self._explainer = Explainer(
            settings.explain, self._roots.all_values, self._roots.words, _RUNNER_PACKAGES, self._sites
        )
        self.engine = Engine(
            gauge,
            settle_seconds=settings.settle_seconds,
            threshold_bytes=settings.threshold_bytes,
            fixture_values=self._roots.values,
            opaque_packages=_RUNNER_PACKAGES,
            on_wait=telling.tell_wait,
            processes=self._started.watch if self._started else None,
            explainer=self._explainer,
            cards=self._started.cards if self._started else None,
            keeps_course=self._recorder.notes_all,
        )
        self.engine.add_cleaners(gathered("pytest_gpuclean_cleaners", Cleaner))
        self.by_hand = ByHand(self.engine, settings, self._note_trouble)
        self._failing = look_into_failures(
            config, settings, self.engine, telling, self._roots.error_frames, self.nvml, self._guard
        )

    def plan(self, items: list[pytest.Item]) -> None:
        """Read the markers of all tests, before any of them runs."""
        for item in items:
            plan = plan_of(item, self._settings)
            if plan != self._default_plan:
                item.stash[PLAN] = plan

    # -- hooks --------------------------------------------------------------------------------------------------

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Generator[None, object, object]:
        """Open the window before anything of the test is set up."""
        __tracebackhide__ = True
        self._in_teardown = self._has_failed = False
        with self._guard:
            self._test = item.nodeid
            if self._is_concerned(item):
                self._open(item)
        return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(
        self, fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
    ) -> Generator[None, object, object]:
        """Book what a fixture of a wider scope brings up to the fixture."""
        __tracebackhide__ = True
        setup: list[Any] | None = None
        with self._guard:
            if fixturedef.scope != "function":
                setup = []
                self._begin_setup(fixturedef, request, setup)
        if setup is None:
            return (yield)
        try:
            return (yield)
        finally:
            with self._guard:
                self._end_setup(fixturedef, request, setup)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_teardown(self, nextitem: pytest.Item | None) -> None:
        """Note that what ends now ends with this test."""
        self._nextitem, self._in_teardown = nextitem, True

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Close the window once everybody else is through with the test, and fail the test that leaked."""
        report = yield
        if self._may_run_again and call.when == "call":
            with self._guard:
                self._failing.note_report(item)
        if call.excinfo is not None:
            with self._guard, self._clock.stopped():
                report = self._failing.look(item, call, report, is_concerned=self._is_concerned(item))
        self._has_failed |= call.excinfo is not None
        if call.when == "teardown":
            with self._guard:
                self._end(item, report, call.excinfo.value if call.excinfo else None)
            if self._problems:
                with self._guard:
                    self._tell_problems(item, report)
        return report

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        """Tell of trouble that came after the last test."""
        for problem in self._problems:
            trouble_of(self._config).add(problem)

    # -- steps --------------------------------------------------------------------------------------------------

    def _is_concerned(self, item: pytest.Item) -> bool:
        return self._concerns_all or PLAN in item.stash or asks_for_fixture(item)

    def _open(self, item: pytest.Item) -> None:
        plan = self._plan_of(item)
        if item.parent is not self._module_of:  # of a whole module, asked once
            self._module_of, self._module = item.parent, module_of(item)
        self._sites.begin_window()
        terms = self._default_terms if plan is self._default_plan else _terms(plan, self._scope_plan(item))
        if self._only_observes and self._started is not None:
            self._started.begin_test(is_marked=plan is not self._default_plan or asks_for_fixture(item))
        if self._notes_all:  # before the first reading, which is a part of what the test costs
            self._recorder.begin(item)
        self.engine.open(item.nodeid, self._module, terms, partial(self._let_go, item))

    def _plan_of(self, item: pytest.Item) -> Plan:
        # Not `get`: it raises and catches where there is none, as in nearly every test.
        return item.stash[PLAN] if PLAN in item.stash else self._default_plan  # noqa: SIM401

    def _scope_plan(self, item: pytest.Item) -> Plan:
        module = item.getparent(pytest.Module)
        return plan_of(module, self._settings) if module is not None else self._default_plan

    def _begin_setup(
        self, fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest, before: list[Any]
    ) -> None:
        before += self._roots.begin(fixturedef, request)
        self.engine.begin_setup(id(fixturedef), fixturedef.argname, fixturedef.scope)
        if self._recorder.for_report:
            self._recorder.begin_fixture(id(fixturedef), fixturedef.argname, fixturedef.scope, fixturedef.baseid)

    def _end_setup(self, fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest, before: list[Any]) -> None:
        request.addfinalizer(partial(self._release, id(fixturedef)))
        self._roots.end(fixturedef, before)
        self.engine.end_setup(id(fixturedef))

    def _let_go(self, item: pytest.Item, kept: Kept) -> Iterable[int]:
        if kept is Kept.OF_ENDED:
            return retention.let_go_of_ended(item)
        if kept is Kept.MEMORY_OF_ENDED:
            return retention.let_go_of_ended(item, self.engine.holds_memory)
        self.by_hand.run_due()
        spared = frozenset(self._roots.error_frames())
        retention.let_go_of_memory(item, self.engine.holds_memory, spared, is_reported=self._is_reported)
        if kept is Kept.ALL and self._is_reported:
            retention.let_go_of_all(item, spared)
            let_go_of_sources()
        if self._error is not None and retention.may_clear_frames(item.config):
            retention.clear_frames(self._error, spared)
        return ()

    def _release(self, key: int) -> None:
        with self._guard, self._clock.stopped():
            self.engine.fixture_release(key, in_teardown=self._in_teardown)
            ended = self._roots.forget(key)
            if ended is not None and retention.may_clear_frames(self._config):
                retention.clear_error_of(ended, frozenset(self._roots.error_frames()))
            if self._recorder.for_report:
                self._recorder.end_fixture(key)

    def _end(self, item: pytest.Item, report: pytest.TestReport, error: BaseException | None) -> None:
        if self.engine.window is None:
            return
        self._error, self._is_reported = error, True
        try:
            told = self._close(item, report)
        finally:
            self._error, self._is_reported = None, False
        if told is not None:
            tell_on(report, item, told)
            self._failing.look_after(item, report, told.records[-1].problems)

    def _close(self, item: pytest.Item, report: pytest.TestReport) -> Told | None:
        seconds = self._closed_unchanged(item)
        if seconds is not None:
            if self._notes_all:
                self._record(item, report, seconds)
            return None
        told = None
        with self._clock.stopped():
            record = self._closed_record(item)
            course = self.engine.course  # to confirm a leak, the test may run again
            stages = record.cleanups if verbosity(item.config) > 0 else ()
            if record.is_told or stages or ATTEMPTS in item.stash:
                told = self._told(item, record)
        with self._guard:  # its verdict is there
            self._telling.report.add(record)
            told_record = told.records[-1] if told is not None else record
            self._record(item, report, record.seconds, told_record, course)
        return told

    def _tell_problems(self, item: pytest.Item, report: pytest.TestReport) -> None:
        """Tell of trouble of our own on the test that it came with."""
        problems, self._problems = self._problems, []
        tell_problems(report, item, problems)

    def _record(
        self,
        item: pytest.Item,
        report: pytest.TestReport,
        seconds: float,
        record: TestRecord | None = None,
        course: Course | None = None,
    ) -> None:
        """Note what a test used; where nobody reads of all tests, of those with a record."""
        given_back_bytes = record.given_back_bytes if record is not None else 0
        figures = self._recorder.end(course or self.engine.course, seconds, given_back_bytes)
        self._recorder.attach(item, report, figures, record)

    def _closed_unchanged(self, item: pytest.Item) -> float | None:
        """Close the window the short way, where the test has passed and nothing but the test ends with it."""
        nextitem = self._nextitem
        ends_more = nextitem is None or nextitem.parent is not item.parent
        has_news = self._has_failed or self.by_hand.has_ended or self.by_hand.due
        if ends_more or has_news or ATTEMPTS in item.stash:
            return None
        seconds = self.engine.close_unchanged(self._plan_of(item).level)
        if seconds is not None:
            self._telling.report.count(seconds)
        return seconds

    def _closed_record(self, item: pytest.Item) -> TestRecord:
        plan = self._plan_of(item)
        due, handle_ended = self.by_hand.take_due(), self.by_hand.has_ended
        self.by_hand.has_ended = False
        level = plan.level if plan.level and ends(plan.every, item, self._nextitem) else None
        if level is None and handle_ended:
            level = plan.level or "quick"
        if self._has_failed:
            retention.clear_kept_frames(item, frozenset(self._roots.error_frames()))
        if retention.pins_frames(item):
            self.engine.do_not_judge()
        ending = Ending(module=ends_module(item, self._nextitem), session=self._nextitem is None)
        record = self.engine.close(ending, level, due)
        if self._started is not None and level == "comprehensive" and ending.module and not ending.session:
            self._started.stop_host_wide()
        if self._assigned:
            record = dataclasses.replace(record, assigned=self._assigned)
        return record

    def _told(self, item: pytest.Item, record: TestRecord) -> Told:
        record = self._verdicts.excuse(item, record)
        if (
            self._settings.confirm
            and self._error is None
            and any(self._is_unconfirmed(item, leak) for leak in record.leaks)
        ):
            devices = {leak.device for leak in record.leaks}
            run_again = partial(self._run_again, item, devices, has_passed=not self._has_failed)
            record = confirm(record, self._settings.confirm, run_again)
        record = self._verdicts.take_in(record)
        self._explainer.count_apart(record.leaks)
        return self._verdicts.tell(item, record)

    def _is_unconfirmed(self, item: pytest.Item, leak: Leak) -> bool:
        return leak.kind == "test" and self._verdicts.fails(item, leak)

    def _run_again(self, item: pytest.Item, traced: Collection[str], *, has_passed: bool) -> TestRecord | None:
        nextitem = self._nextitem
        self._is_reported = False
        with self._clock.anew(), self._sites.recording(traced) as is_recorded:
            passes = run_quietly(item, nextitem)
        self._nextitem, self._is_reported = nextitem, True
        self._explainer.is_on = is_recorded  # for the places alone: who holds it has been looked up
        record = self._closed_record(item) if self.engine.window is not None else None
        self._explainer.is_on = True
        self._sites.forget()
        if is_recorded and has_passed and not passes:  # what fails under the record has to run without it
            return self._run_again(item, (), has_passed=has_passed)
        return record

    # -- trouble of our own -------------------------------------------------------------------------------------

    def _note_trouble(self, error: BaseException) -> None:
        self._problems.append(own_problem(error))
        self.engine.abandon(self._test)


def _terms(plan: Plan, scope_plan: Plan) -> Terms:
    return Terms(
        threshold_bytes=plan.threshold_bytes,
        judges=plan.judges,
        explains=plan.allowance is None or not plan.allowance.holds_on(dt.date.today()),
        peak_limit_bytes=plan.peak_limit_bytes,
        scope_threshold_bytes=scope_plan.threshold_bytes,
    )
