"""Plugins that report: report-log, json-report, html; and those that print otherwise: sugar, rich."""

import json
import re

import pytest

from .street import LEAKED, MIXED, in_full

LEAKY = {"test_it.py::test_leaks", "test_it.py::TestClass::test_leaks_too"}
WORKERS = pytest.mark.parametrize("more", [(), pytest.param(("-p", "xdist", "-n2"), marks=in_full)], ids=" ".join)


def run_both(street, *arguments):
    if "xdist" in arguments:
        pytest.importorskip("xdist")
    street.write(MIXED)
    beside, alone = street.both(*arguments, apart=True)
    assert set(beside.leaky) == LEAKY
    return beside, alone


@WORKERS
def test_report_log(street, more):
    pytest.importorskip("pytest_reportlog")
    log = street.path / "log.jsonl"
    street.write(MIXED)

    def entries(run):
        log.unlink(missing_ok=True)
        run("-p", "pytest_reportlog", f"--report-log={log}", *more, apart=True)
        return [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]

    def facts(found):
        reports = [entry for entry in found if entry.get("$report_type") == "TestReport"]
        return sorted((r["nodeid"], r["when"], r["outcome"]) for r in reports if (r["nodeid"], r["when"]) not in ends)

    ends = {(test, "teardown") for test in LEAKY}
    mine, theirs = entries(street.beside), entries(street.alone)
    assert facts(mine) == facts(theirs) != []
    leaks = {
        entry["nodeid"]: dict(entry["user_properties"])
        for entry in mine
        if entry.get("when") == "teardown" and LEAKED in str(entry["longrepr"])
    }
    assert set(leaks) == LEAKY
    assert {properties["gpuclean_leaked_bytes"] for properties in leaks.values()} == {4 * 2**20}


@WORKERS
def test_json_report(street, more):
    pytest.importorskip("pytest_jsonreport")
    file = street.path / "report.json"
    street.write(MIXED)
    found = []
    for run in (street.beside, street.alone):
        run("-p", "pytest_jsonreport", "--json-report", f"--json-report-file={file}", *more, apart=True)
        found.append(json.loads(file.read_text(encoding="utf-8")))
    outcomes = [{test["nodeid"]: test["outcome"] for test in report["tests"]} for report in found]
    assert {test for test, outcome in outcomes[0].items() if outcome != outcomes[1][test]} == LEAKY
    assert {outcomes[0][test] for test in LEAKY} == {"error"}
    assert found[0]["summary"]["error"] == found[1]["summary"]["error"] + 2
    texts = [test["teardown"]["longrepr"] for test in found[0]["tests"] if test["nodeid"] in LEAKY]
    # What comes from a worker begins with a line about that.
    assert all(any(line.startswith(LEAKED) for line in text.splitlines()[:2]) for text in texts)


@WORKERS
def test_html(street, more):
    pytest.importorskip("pytest_html")
    file = street.path / "report.html"
    street.write(MIXED)
    found = []
    for run in (street.beside, street.alone):
        # pytest-html runs on the data of pytest-metadata
        run("-p", "metadata", "-p", "html", f"--html={file}", "--self-contained-html", *more, apart=True)
        blob = re.search(r'data-jsonblob="([^"]*)"', file.read_text(encoding="utf-8"))[1]
        tests = json.loads(blob.replace("&#34;", '"').replace("&amp;", "&").replace("&#39;", "'"))["tests"]
        found.append({test: [row["result"] for row in rows] for test, rows in tests.items()})
    mine, theirs = found
    assert {test: rows for test, rows in mine.items() if theirs.get(test) != rows} == {
        test: ["Passed", "Error"] for test in LEAKY
    }
    assert not set(theirs) - set(mine)


@pytest.mark.parametrize("look", ["sugar", "rich"])
@pytest.mark.parametrize("more", [(), ("-v",), pytest.param(("-p", "xdist", "-n2"), marks=in_full)], ids=" ".join)
def test_other_looks(street, look, more):
    pytest.importorskip(f"pytest_{look}")
    switch = {"sugar": "--force-sugar", "rich": "--rich"}[look]
    beside, alone = run_both(street, "-p", look, switch, *more)
    assert beside.result.ret == alone.result.ret
    for test in LEAKY:
        assert re.search(rf"LEAK {re.escape(test)}: leaked 4.0 MiB on fake:0", re.sub(r"\s+", " ", beside.text))
