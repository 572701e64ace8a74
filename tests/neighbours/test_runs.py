"""Ways to run that pytest itself has: what is shown, chosen, left out or made strict."""

import re

import pytest

from .street import GATE, MIXED, in_full

CACHE = ("-p", "cacheprovider")


def shown(seen, pattern):
    return [line.rstrip() for line in seen.result.outlines if re.search(pattern, line)]


@pytest.mark.parametrize("option", ["--setup-plan", "--setup-only", "--setup-show"])
def test_setups_are_shown_alike(street, option):
    street.write(MIXED)
    beside, alone = street.beside(option), street.alone(option)
    lines, expected = (
        [line.rstrip(".EFsx ") for line in shown(seen, "^ .*(SETUP|TEARDOWN|::)")] for seen in (beside, alone)
    )
    assert lines == expected
    assert any("SETUP    C model" in line for line in lines)
    if option == "--setup-show":
        assert len(beside.leaky) == 2
        assert beside.facts() == alone.facts()
    else:
        assert not beside.leaky
        assert [report.fact for report in beside.reports] == [report.fact for report in alone.reports]


@pytest.mark.parametrize("more", [(), ("-q",), ("-qq",)], ids=["", "quiet", "quieter"])
def test_collecting_alone(street, more):
    street.write(MIXED)
    beside, alone = street.beside("--collect-only", *more), street.alone("--collect-only", *more)
    pattern = "<|::|test_it.py: 1"
    assert shown(beside, pattern) == shown(alone, pattern) != []
    assert beside.result.ret == alone.result.ret == 0
    assert not beside.reports


def test_failed_tests_first_or_alone(street):
    street.more = ()
    street.write(MIXED)
    first = street.beside(*CACHE)
    again = street.beside(*CACHE, "--lf")
    failed = ["test_fails", "test_leaks", "test_leaks_too", "test_teardown"]
    assert sorted(test.rpartition("::")[2] for test in again.order) == failed
    assert again.leaky == first.leaky
    fail_first = street.beside(*CACHE, "--ff")
    assert sorted(test.rpartition("::")[2] for test in fail_first.order[:4]) == failed
    assert len(fail_first.order) == len(first.order)
    cured = street.alone(*CACHE, "--lf")
    assert len(cured.order) == 4
    last = street.beside(*CACHE, "--lf")
    assert [test.rpartition("::")[2] for test in last.order] == ["test_fails", "test_teardown"]


def test_a_leak_is_a_step(street):
    street.more = ()
    street.write("""
        def test_first():
            pass

        def test_leaks():
            KEPT.append(allocate(4 * MiB))

        def test_last():
            pass
    """)
    for _ in range(2):
        stopped = street.beside(*CACHE, "--sw")
        assert stopped.order[-1] == "test_it.py::test_leaks"
        assert stopped.leaky == {"test_it.py::test_leaks": 1}
    cured = street.alone(*CACHE, "--sw")
    assert [test.rpartition("::")[2] for test in cured.order] == ["test_leaks", "test_last"]


def test_without_the_plugin_a_suite_that_does_not_name_it_runs(street):
    street.write(MIXED)
    alone = street.alone()
    assert "gpuclean" not in alone.text.replace("test_it", "")
    assert alone.result.ret == 1
    refused = street.alone(*GATE, apart=True)
    assert refused.result.ret == pytest.ExitCode.USAGE_ERROR
    assert "unrecognized arguments: --gpu-clean=quick" in refused.text


@pytest.mark.parametrize("mode", ["importlib", pytest.param("append", marks=in_full)])
def test_import_modes(street, mode, simgpu, no_garbage):
    street.suite.pytester.mkdir("sub")
    street.write(
        """
        import pytest
        import torch

        KEPT = []

        def test_leaks():
            KEPT.append(torch.zeros(1024, 1024, device="simgpu"))

        def test_frees():
            node = [torch.zeros(1024, 1024, device="simgpu")]
            node.append(node)

        def test_fails():
            local = torch.zeros(1024, 1024, device="simgpu")
            raise ValueError("own reason")
    """,
        "test_it",
        header="",
    )
    (street.path / "test_it.py").rename(street.path / "sub" / "test_it.py")
    beside, _ = street.both(f"--import-mode={mode}")
    assert beside.leaky == {"sub/test_it.py::test_leaks": 1}
    assert re.search(r"held by \S*test_it\.KEPT", beside.text)
    beside.result.stdout.fnmatch_lines(["given back: ?.0 MiB*"])


@pytest.mark.parametrize("capture", ["no", pytest.param("sys", marks=in_full), pytest.param("tee-sys", marks=in_full)])
def test_captures(street, capture):
    street.write(
        MIXED + "\n    def test_prints(capsys):\n        print('printed')\n        assert capsys.readouterr().out\n"
    )
    beside, alone = street.both(f"--capture={capture}")
    assert beside.order == alone.order
    assert len(beside.leaky) == 2


@pytest.mark.parametrize("arguments", [(), ("--gpu-report=report.json",), ("--gpu-leak-confirm=1",)], ids=" ".join)
def test_without_a_terminal(street, arguments):
    street.write(MIXED)
    alone = street.alone("-p", "no:terminal")
    beside = street.beside("-p", "no:terminal", *arguments)
    assert beside.facts() == alone.facts()
    assert set(beside.leaky) == {test for test in beside.order if "leaks" in test}
    assert beside.result.ret == 1
    assert "INTERNALERROR" not in beside.text
    if "--gpu-report=report.json" in arguments:
        assert (street.path / "report.json").read_text(encoding="utf-8").count('"kind": "test"') == 2


def test_without_a_cache(street):
    street.write(MIXED)
    beside, alone = street.both("-p", "no:cacheprovider")
    assert beside.order == alone.order
    assert not (street.path / ".pytest_cache").exists()


STRICT = """
    import asyncio
    import warnings

    def test_passes():
        pass

    def test_leaks():
        KEPT.append(allocate(4 * MiB))

    def test_fails_for_its_own_warning():
        warnings.warn("its own")

    def test_garbage():
        node = [allocate(2 * MiB)]
        node.append(node)

    def test_loop():
        async def sleep():
            await asyncio.sleep(0)

        asyncio.run(sleep())
"""
EVERYTHING = (
    *("--gpu-clean=comprehensive", "--gpu-leak-confirm=1", "--gpu-leak-watch=all", "--gpu-peak-limit=1GiB"),
    *("--gpu-report=report.json", "--gpu-report=report.html", "--gpu-report=report.md", "--gpu-oom-retry=1"),
)


@in_full
@pytest.mark.parametrize("more", [(), ("-p", "xdist", "-n2")], ids=" ".join)
def test_every_warning_is_an_error_and_python_is_in_its_development_mode(street, monkeypatch, more):
    if more:
        pytest.importorskip("xdist")
    monkeypatch.setenv("PYTHONDEVMODE", "1")
    monkeypatch.setenv("PYTHONWARNINGS", "error")
    street.write(STRICT)
    beside, alone = street.both("-W", "error", *more, gate=EVERYTHING, apart=True)
    assert beside.leaky == {"test_it.py::test_leaks": 1}
    failed = {report.test for report in beside.reports if report.outcome == "failed" and report.when == "call"}
    assert failed == {"test_it.py::test_fails_for_its_own_warning"}
    for word in ("ResourceWarning", "DeprecationWarning", "Exception ignored"):
        assert (word in beside.text) == (word in alone.text)
