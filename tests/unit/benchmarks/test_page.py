"""How figures become promises kept or missed, tables and a plot."""

import dataclasses
import json
from importlib.util import find_spec

import pytest

from benchmarks import budgets, page
from benchmarks.measure import ROOT, Extent, Point, Row, above_bare, rounds_of, spread_us

ABOUT = page.machine(Extent(quick=True), 12.0, (0.1, 0.2), 21e-6)


def row(**values):
    return Row(**{"group": "a group", "what": "a test", "measured": 10.0, "unit": "µs", **values})


def kept(rows):
    return dict(zip(budgets.PROMISES, budgets.look_at(rows), strict=True))


def test_a_promise_is_met_missed_or_not_measured():
    rows = [
        row(promise="idle", budget=20.0),
        row(promise="counted", budget=20.0),
        row(promise="counted", budget=9.0, what="another"),
        row(budget=1.0),
    ]
    found = kept(rows)
    assert found["idle"].word == "met"
    assert found["counted"].word == "missed by 1 of 2"
    assert found["counted"].worst.what == "another"
    assert found["records"].word == "not measured this time"


def test_the_worst_figure_is_the_one_nearest_to_its_budget():
    found = kept([row(promise="idle", budget=100.0), row(promise="idle", budget=11.0, what="near")])
    assert found["idle"].worst.what == "near"


def test_the_tables_hide_nothing():
    text = page.tables([row(budget=9.0, promise="idle", spread=1.5), row(what="free", measured=0.5)], ABOUT)
    assert "| a test | 10.0 ± 1.50 µs | 9.00 µs (**missed**) |  |" in text
    assert "| free | 0.50 µs |  |  |" in text
    assert "**missed by 1 of 1**" in text
    assert text.count("not measured this time") == len(budgets.PROMISES) - 1
    assert "few (--quick)" in text
    assert "load of the machine 0.1 before, 0.2 after; the loop of `benchmarks/pace.py` takes 21.0 µs" in text


def test_a_page_keeps_what_is_around_the_tables():
    before = f"head\n{page.BEGIN}\nold\n{page.END}\ntail\n"
    after = page.with_tables(before, "new\n")
    assert after == f"head\n{page.BEGIN}\n\nnew\n\n{page.END}\ntail\n"
    assert page.with_tables(after, "new\n") == after


@pytest.mark.parametrize("text", ["", page.BEGIN, page.END + page.BEGIN, page.BEGIN + page.END + page.END])
def test_a_page_without_its_marks_is_refused(text):
    with pytest.raises(ValueError, match="once each"):
        page.with_tables(text, "new")


def test_the_page_of_this_project_has_its_marks():
    assert page.with_tables(page.PAGE.read_text(encoding="utf-8"), "new")


def test_a_row_goes_through_json_and_back():
    before = row(budget=9.0, promise="idle", point=Point(panel="heap", line="the plugin", x=10.0), spread=0.1)
    wire = json.loads(json.dumps(page.to_wire(dataclasses.replace(before, rounds={"x": (1.0,)}))))
    assert page.from_wire(wire) == before
    assert wire["is_met"] is False


def test_every_promise_is_some_benchmarks_own():
    for name, promise in budgets.PROMISES.items():
        source = ROOT / "benchmarks" / f"{promise.measured_by.split()[0]}.py"
        assert f'"{name}"' in source.read_text(encoding="utf-8"), f"{source.name} measures nothing for {name!r}"


FIGURES = {
    "ours": [{"cpu_seconds": 3.0, "tests": 2}, {"cpu_seconds": 2.0, "tests": 2}, {"cpu_seconds": 9.0, "tests": 2}],
    "bare": [{"cpu_seconds": 1.0, "tests": 2}, {"cpu_seconds": 1.5, "tests": 2}, {"cpu_seconds": 7.0, "tests": 2}],
}


def test_the_median_of_each_counts_and_the_spread_is_that_of_the_pairs():
    assert above_bare(FIGURES, "ours") == 1.5
    assert spread_us(FIGURES, "ours") == 0.0, "2.0, 0.5 and 2.0 seconds: most differ by nothing"
    assert rounds_of(FIGURES, "ours", where="here") == {"here: ours": (3.0, 2.0, 9.0)}


@pytest.mark.skipif(find_spec("matplotlib") is None, reason="matplotlib is not installed")
def test_the_same_results_give_the_same_plot(tmp_path):
    from benchmarks import plot

    rows = [
        row(point=Point(panel="heap", line="the plugin", x=10.0)),
        row(point=Point(panel="heap", line="the plugin", x=100.0), measured=-1.0),
        row(point=Point(panel="a test", line="quick", x=0.0), budget=1.0, promise="idle"),
    ]
    for name in ("a.svg", "b.svg"):
        plot.draw(rows, tmp_path / name)
    first = (tmp_path / "a.svg").read_text()
    assert first == (tmp_path / "b.svg").read_text()
    assert "Cost of a test on a large heap" in first
    assert "not measured this time" in first


@pytest.mark.skipif(find_spec("pyperf") is None, reason="pyperf is not installed")
def test_pyperf_reads_the_rounds_and_no_name_of_the_machine_is_among_them(tmp_path):
    import pyperf

    path = tmp_path / "rounds.json"
    page.write_rounds([row(rounds={"x": (0.1, 0.2, 0.3), "nothing": (-1.0,)})], path)
    suite = pyperf.BenchmarkSuite.load(str(path))
    assert suite.get_benchmark_names() == ["x"]
    assert suite.get_benchmark("x").median() == pytest.approx(0.2)
    assert "hostname" not in path.read_text()
    assert "executable" not in path.read_text()
