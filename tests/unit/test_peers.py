"""Runs of others' suites are compared outcome by outcome: what differs is found, and nothing of the user's is there."""

import hashlib
import json
import tarfile

import pytest

from benchmarks.measure import PLUGIN
from benchmarks.peers.comparing import differences, read, unsteady
from benchmarks.peers.running import CannotRun, fetch, run
from benchmarks.peers.suites import SUITES, Suite


def report(test="t::a", phase="call", outcome="passed", xfail=None, text=""):
    return {"kind": "report", "test": test, "phase": phase, "outcome": outcome, "xfail": xfail, "text": text}


def warning(test="t::a", category="UserWarning", text="mind"):
    return {"kind": "warning", "test": test, "category": category, "text": text}


def said(*entries, status=0):
    return read(map(json.dumps, [*entries, {"kind": "end", "status": status}]))


BARE = said(
    report(), report("t::b", outcome="skipped", text="no GPU"), report("t::c", outcome="skipped", xfail="later")
)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ([report()], ["t::b", "t::c"]),
        ([report(outcome="failed"), report("t::b", outcome="skipped", text="no GPU")], ["t::a", "t::c"]),
        ([report(), report(phase="teardown", outcome="failed", text="leaked")], ["t::a", "t::b", "t::c"]),
        ([report(), report("t::b", outcome="skipped", text="other reason")], ["t::b", "t::c"]),
        ([report(), report("t::b", outcome="skipped", text="no GPU"), report("t::c", outcome="skipped")], ["t::c"]),
    ],
    ids=["lost", "failed", "error at teardown", "skipped for another reason", "no longer expected to fail"],
)
def test_each_outcome_that_differs_is_named(other, words):
    found = differences(BARE, said(*other), in_order=True)
    assert [text.partition(": ")[0] for text in found] == words


def test_warnings_count_and_those_of_the_plugin_are_set_aside():
    one, two = said(report(), warning()), said(report(), warning(), warning(), warning(category="GpuCleanWarning"))
    (found,) = differences(one, two, in_order=True)
    assert found.endswith("1 warnings became 2")
    assert two.told == 1
    assert differences(one, said(report(), warning(), warning(category="GpuCleanWarning")), in_order=True) == []


def test_with_workers_a_warning_counts_and_not_whose_it_is():
    one = said(report(), report("t::b"), warning("t::a"))
    two = said(report(), report("t::b"), warning("t::b"), warning("t::a"))
    assert differences(one, two, in_order=False) == []
    assert unsteady(one, two, in_order=False) == set()
    assert unsteady(one, two, in_order=True) == {"t::b"}
    (found,) = differences(one, said(report(), report("t::b"), warning(text="other"), warning()), in_order=False)
    assert "other" in found


def test_the_order_and_the_exit_status_count():
    one, two = said(report("a"), report("b")), said(report("b"), report("a"))
    assert differences(one, two, in_order=True) == ["the tests ran in another order"]
    assert differences(one, two, in_order=False) == []
    assert differences(one, said(report("a"), report("b"), status=3), in_order=True) == ["exit status 0 became 3"]


def test_addresses_and_workers_do_not_count():
    one = said(report(outcome="failed", text="<Thing at 0x7f01>\n"))
    two = said(report(outcome="failed", text="[gw1] linux -- Python 3\n<Thing at 0x7fff>\n"))
    assert differences(one, said(report(outcome="failed", text="<Thing at 0x12>\n")), in_order=True) == []
    assert differences(said(report(outcome="failed", text="\n<Thing at 0x7f>\n")), two, in_order=False) == []


def test_what_differs_without_the_plugin_is_not_compared():
    again = said(report(outcome="failed", text="0.1 != 0.2"), *[report("t::b")])
    one = said(report(), report("t::b"))
    assert unsteady(one, again, in_order=True) == {"t::a"}
    assert differences(one, again, in_order=True, apart_from={"t::a"}) == []


def test_outcomes_are_counted_as_pytest_does():
    counted = said(
        report("a"),
        report("b", outcome="failed"),
        report("c", phase="setup", outcome="failed"),
        report("d", outcome="skipped"),
        report("e", outcome="skipped", xfail="later"),
        report("f", outcome="passed", xfail="sooner"),
    ).counts
    assert counted == {"passed": 1, "failed": 1, "error": 1, "skipped": 1, "xfailed": 1, "xpassed": 1}


@pytest.fixture
def stranger(tmp_path):
    """A source distribution with a suite that looks for the plugin and for what is the user's."""
    source = tmp_path / "stranger-1.0"
    source.mkdir()
    (source / "test_it.py").write_text(
        "import os, warnings, pytest\n"
        "def test_nothing_of_the_user_is_here():\n"
        "    assert 'A_TOKEN' not in os.environ\n"
        "    assert not os.listdir(os.path.expanduser('~'))\n"
        "@pytest.mark.skip(reason='no reason')\n"
        "def test_skipped(): pass\n"
        "def test_failed(): warnings.warn('mind'); assert 0\n"
        "def test_knows(request): assert not request.config.pluginmanager.has_plugin('gpuclean')\n"
    )
    sources = tmp_path / "sources"
    sources.mkdir()
    archive = sources / "stranger-1.0.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(source, "stranger-1.0")
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    return Suite(name="stranger", version="1.0", sha256=digest, tests=("test_it.py",)), sources


def test_a_suite_that_behaves_otherwise_with_the_plugin_is_found(stranger, tmp_path, monkeypatch):
    suite, sources = stranger
    monkeypatch.setenv("A_TOKEN", "secret")
    work = tmp_path / "work"
    work.mkdir()
    folder = fetch(suite, work, sources)
    bare, other = run(suite, folder, work, ()), run(suite, folder, work, tuple(PLUGIN))
    assert bare.said.counts == {"passed": 2, "failed": 1, "skipped": 1}
    assert bare.said.warnings.total() == 1
    assert bare.said.status == 1
    assert bare.cpu_seconds > 0
    (found,) = differences(bare.said, other.said, in_order=True)
    assert found.startswith("test_it.py::test_knows: ")


def test_another_source_distribution_than_the_one_that_was_read_is_refused(stranger, tmp_path):
    suite, sources = stranger
    (sources / "stranger-1.0.tar.gz").write_bytes(b"something else")
    with pytest.raises(CannotRun, match="its hash differs"):
        fetch(suite, tmp_path, sources)


def test_every_suite_is_pinned():
    assert len({suite.name for suite in SUITES}) == len(SUITES)
    assert all(len(suite.sha256) == 64 and suite.tests for suite in SUITES)
