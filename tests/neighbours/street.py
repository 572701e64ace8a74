"""One inner suite beside a neighbour: run with the gate and the cleaning on, and run without this plugin at all."""

from __future__ import annotations

import dataclasses
import json
import os
import textwrap
from collections import Counter
from pathlib import Path

import pytest
from plugin.conftest import Suite

in_full = pytest.mark.skipif(
    os.environ.get("GPUCLEAN_NEIGHBOURS") != "all", reason="runs with GPUCLEAN_NEIGHBOURS=all (tox -e neighbours)"
)
"""What takes seconds and has a shorter like that runs always."""
GATE = ("--gpu-clean=quick",)
LEAKED = "gpuclean: leaked "
MIXED = """
    @pytest.fixture(scope="class")
    def model():
        yield allocate(8 * MiB)

    @pytest.fixture
    def broken():
        yield
        raise OSError("at teardown")

    def test_passes(model):
        pass

    def test_leaks():
        KEPT.append(allocate(4 * MiB))

    def test_garbage():
        node = [allocate(2 * MiB)]
        node.append(node)

    def test_fails():
        buffer = allocate(16 * MiB)
        assert buffer.size_bytes == 0

    @pytest.mark.skip(reason="later")
    def test_skipped():
        pass

    @pytest.mark.xfail
    def test_xfails():
        buffer = allocate(16 * MiB)
        assert buffer.size_bytes == 0

    @pytest.mark.parametrize("number", [1, 2, 3])
    def test_number(number):
        buffer = allocate(number * MiB)

    class TestClass:
        def test_keeps_on_itself(self):
            self.buffer = allocate(4 * MiB)

        def test_leaks_too(self):
            KEPT.append(allocate(4 * MiB))

    def test_teardown(broken):
        pass
"""


@dataclasses.dataclass(frozen=True)
class Report:
    """One report of one phase, as the run's controller saw it."""

    test: str
    when: str
    outcome: str
    expected: bool
    kind: str
    text: str
    worker: str

    @property
    def fact(self) -> tuple[str, str, bool, str]:
        """What of it is the same in every run."""
        return self.when, self.outcome, self.expected, self.kind


class Seen:
    """A run: what it printed, and its reports in their order."""

    def __init__(self, result: pytest.RunResult, reports: list[Report]) -> None:
        self.result = result
        self.reports = reports
        self.text = result.stdout.str() + result.stderr.str()

    @property
    def order(self) -> list[str]:
        """The tests, as they came to their end."""
        return [report.test for report in self.reports if report.when == "teardown"]

    @property
    def leaky(self) -> Counter[str]:
        """How often which test was told that it leaked."""
        return Counter(report.test for report in self.reports if report.text.startswith(LEAKED))

    def facts(self) -> dict[str, Counter[tuple[str, str, bool, str]]]:
        """The outcomes of each test, phase by phase; the end of a test that leaks is left out."""
        found: dict[str, Counter[tuple[str, str, bool, str]]] = {}
        for report in self.reports:
            if not ("leaks" in report.test and report.when == "teardown"):
                found.setdefault(report.test, Counter())[report.fact] += 1
        return found


class Street:
    """An inner suite and its neighbour."""

    def __init__(self, suite: Suite, monkeypatch: pytest.MonkeyPatch) -> None:
        self.suite = suite
        self.path: Path = suite.pytester.path
        self._monkeypatch = monkeypatch
        self.write, self.ini = suite.write, suite.ini
        self.more = ("-p", "no:cacheprovider")
        """Options of every run."""
        self.conftest("")
        witness = Path(__file__).with_name("witness.py").read_text(encoding="utf-8")
        suite.pytester.makepyfile(witness=witness)

    def conftest(self, text: str) -> None:
        """Write a conftest that brings the fake device and does this, also where the plugin is not there."""
        optional = "pytest_gpuclean_probes = pytest.hookimpl(optionalhook=True)(pytest_gpuclean_probes)"
        self.suite.conftest(f"{optional}\n\n{textwrap.dedent(text)}")

    def beside(self, *arguments: str, gate: tuple[str, ...] = GATE, apart: bool = False) -> Seen:
        """Run it with the plugin on."""
        return self._run("gpuclean", [*arguments, *gate, "--gpu-settle=0"], apart)

    def alone(self, *arguments: str, apart: bool = False) -> Seen:
        """Run it without the plugin."""
        return self._run("no:gpuclean", list(arguments), apart)

    def both(self, *arguments: str, gate: tuple[str, ...] = GATE, apart: bool = False) -> tuple[Seen, Seen]:
        """Run it with and without the plugin: tests named `..leaks..` are told to leak, and all else is the same."""
        beside, alone = self.beside(*arguments, gate=gate, apart=apart), self.alone(*arguments, apart=apart)
        assert alone.reports, alone.text
        assert beside.facts() == alone.facts()
        assert set(beside.leaky) == {test for test in beside.order if "leaks" in test}
        assert "TROUBLE" not in beside.text and "trouble of gpuclean" not in beside.text
        return beside, alone

    def _run(self, plugin: str, arguments: list[str], apart: bool) -> Seen:
        path = self.path / "witness.jsonl"
        path.unlink(missing_ok=True)
        self._monkeypatch.setenv("PYTEST_ADDOPTS", f"-p {plugin} -p witness -p no:faulthandler")
        run = self._apart if apart else self._here
        result = run([*self.more, *arguments])
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        return Seen(result, [Report(**json.loads(line)) for line in lines])

    def _here(self, arguments: list[str]) -> pytest.RunResult:
        return self.suite.run(*arguments, settle=True)

    def _apart(self, arguments: list[str]) -> pytest.RunResult:
        return self.suite.run_apart(*arguments, settle=True)
