"""pytest-xdist: every way to hand tests out, and to stop."""

import re

import pytest

from .street import MIXED, in_full

pytest.importorskip("xdist")

XDIST = ("-p", "xdist")
MODES = ["loadfile", "loadscope", "loadgroup", "worksteal"]
IN_A_GROUP = """
    @pytest.mark.xdist_group("gpu")
    @pytest.mark.parametrize("size", ["1@2", "3"])
    def test_leaks(size):
        KEPT.append(allocate(4 * MiB))

    @pytest.mark.xdist_group("gpu")
    def test_clean():
        pass
"""
LEAKS_IN_ONE_WORKER = """
    import os

    def test_it():
        if os.environ["PYTEST_XDIST_WORKER"] == "{worker}":
            KEPT.append(allocate(4 * MiB))
            time.sleep({seconds})
        else:
            time.sleep({others})
"""


@pytest.mark.parametrize("mode", ["load", *(pytest.param(mode, marks=in_full) for mode in MODES)])
def test_each_way_to_hand_out(street, mode):
    street.write(MIXED)
    street.write(MIXED, "test_other")
    beside, alone = street.both(*XDIST, "-n2", f"--dist={mode}", apart=True)
    assert sorted(beside.order) == sorted(alone.order)
    assert {report.worker for report in beside.reports} == {"gw0", "gw1"}
    assert set(beside.leaky.values()) == {1}
    assert len(beside.leaky) == 4
    beside.result.stdout.fnmatch_lines(["given back: * MiB in * cleanups"])


def test_no_workers(street):
    street.write(MIXED)
    beside, alone = street.both(*XDIST, "-n0")
    assert beside.order == alone.order
    beside.result.stdout.fnmatch_lines(["given back: * MiB in * cleanups"])


@in_full
def test_a_group_stays_together_and_its_leaks_are_known_by_the_names_that_they_have_without_workers(street):
    street.write(IN_A_GROUP)
    first = street.beside(*XDIST, "-n0", "--gpu-leak-update-baseline", "--gpu-leak-baseline=known.json")
    first.result.assert_outcomes(passed=3)
    grouped = street.beside(*XDIST, "-n2", "--dist=loadgroup", "--gpu-leak-baseline=known.json", apart=True)
    grouped.result.assert_outcomes(passed=3)
    if any("@gpu" in test for test in grouped.order):  # xdist 3.8 knows no groups on pytest 9.2
        assert len({report.worker for report in grouped.reports}) == 1
    assert "tighten" not in grouped.text
    again = street.beside(
        *XDIST, "-n2", "--dist=loadgroup", "--gpu-leak-update-baseline", "--gpu-leak-baseline=anew.json", apart=True
    )
    again.result.assert_outcomes(passed=3)
    known, anew = ((street.path / name).read_text(encoding="utf-8") for name in ("known.json", "anew.json"))
    assert anew == known


@in_full
def test_a_leak_in_a_group_is_allowed_by_the_name_of_its_test(street):
    street.write(IN_A_GROUP)
    street.ini("gpu_leak_allow =", "    test_it.py::test_leaks[1@2]  known", "    test_it.py::test_leaks[3]  known")
    seen = street.beside(*XDIST, "-n2", "--dist=loadgroup", apart=True)
    seen.result.assert_outcomes(passed=3)


@in_full
@pytest.mark.parametrize("worker", ["gw0", "gw1"])
@pytest.mark.parametrize("is_last", [True, False], ids=["which is the last", "which is the first"])
def test_a_test_that_runs_in_each_worker_and_leaks_in_one(street, worker, is_last):
    text = LEAKS_IN_ONE_WORKER.format(worker=worker, seconds=0.5 * is_last, others=0.5 * (not is_last))
    street.write("import time\n" + text.replace("\n    ", "\n"))
    seen = street.beside(*XDIST, "-n2", "--dist=each", "--gpu-report=report.md", apart=True)
    seen.result.assert_outcomes(passed=2, errors=1)
    assert seen.leaky == {"test_it.py::test_it": 1}
    seen.result.stdout.fnmatch_lines(["LEAK test_it.py::test_it: leaked 4.0 MiB on fake:0*"])
    assert len(re.findall("^LEAK ", seen.text, re.MULTILINE)) == 1
    assert "unfinished" not in (street.path / "report.md").read_text(encoding="utf-8")


@in_full
def test_each_worker_tells_its_own_leaks(street):
    street.write(MIXED)
    beside, alone = street.both(*XDIST, "-n2", "--dist=each", apart=True)
    assert sorted(beside.order) == sorted(alone.order)
    assert set(beside.leaky.values()) == {2}
    assert len(re.findall("^LEAK ", beside.text, re.MULTILINE)) == 4
    beside.result.stdout.fnmatch_lines(["given back: * MiB in * cleanups"])


@in_full
@pytest.mark.parametrize("workers", [["-n0"], ["-n2"]], ids="".join)
def test_a_leak_counts_for_maxfail_as_any_failure_does(street, workers):
    street.write("""
        import time

        @pytest.mark.parametrize("number", range(40))
        def test_leaks(number):
            KEPT.append(allocate(4 * MiB))
            time.sleep(0.05)
    """)
    seen = street.beside(*XDIST, *workers, "--maxfail=2", apart=True)
    assert 2 <= sum(seen.leaky.values()) < 10
    assert re.search("stopping after 2 failures", seen.text)
    quiet = street.alone(*XDIST, *workers, "--maxfail=2", apart=True)
    quiet.result.assert_outcomes(passed=40)
