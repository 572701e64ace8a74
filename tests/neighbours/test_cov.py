"""pytest-cov: the figures are the same with and without, line by line, also where tests run again."""

import json

import pytest

from .street import GATE, in_full

pytest.importorskip("pytest_cov")

COV = (
    "-p",
    "pytest_cov",
    "--cov=code_under_test",
    "--cov-branch",
    "--cov-report=json:figures.json",
    "--cov-context=test",
)
CODE = """
    class Model:
        def __init__(self, buffer):
            self.buffer = buffer

        def run(self, number):
            if number > 1:
                return "large"
            for _ in range(number):
                continue
            return "small"

        def __del__(self):
            self.buffer = None

        def never(self):
            return "never"
"""
TESTS = """
    from code_under_test import Model

    @pytest.fixture
    def shared():
        yield Model(allocate(8 * MiB))

    @pytest.mark.parametrize("number", [0, 1, 2])
    def test_it(shared, number):
        model = Model(allocate(4 * MiB))
        model.itself = model
        assert model.run(number) in ("small", "large")

    def test_leaks(shared):
        KEPT.append(Model(allocate(4 * MiB)))

    def test_fails(shared):
        model = Model(allocate(16 * MiB))
        assert model.run(0) == "large"
"""


def figures(street):
    file = street.path / "figures.json"
    [found] = json.loads(file.read_text(encoding="utf-8"))["files"].values()
    file.unlink()
    return {name: found[name] for name in ("executed_lines", "missing_lines", "executed_branches", "missing_branches")}


@pytest.mark.parametrize(
    "more",
    [
        (),
        pytest.param(("-p", "xdist", "-n2"), marks=in_full),
        pytest.param(("-p", "rerunfailures", "--reruns=1"), marks=in_full),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize(
    "gate",
    [
        pytest.param(GATE, marks=in_full),
        pytest.param(
            ("--gpu-clean=comprehensive", "--gpu-leak-confirm=1", "--gpu-leak-trace=on", "--gpu-report=a.json")
        ),
    ],
    ids=["quick", "all that runs a test again"],
)
def test_figures_are_the_same(street, more, gate):
    if "xdist" in more:
        pytest.importorskip("xdist")
    if "rerunfailures" in more:
        pytest.importorskip("pytest_rerunfailures")
    street.suite.pytester.makepyfile(code_under_test=CODE)
    street.write(TESTS)
    alone = street.alone(*COV, *more, apart=True)
    expected = figures(street)
    beside = street.beside(*COV, *more, gate=gate, apart=True)
    assert figures(street) == expected
    assert expected["missing_lines"] == [16]
    assert set(beside.leaky) == {"test_it.py::test_leaks"}
    assert {test: facts for test, facts in beside.facts().items() if "leaks" not in test} == {
        test: facts for test, facts in alone.facts().items() if "leaks" not in test
    }


@pytest.mark.parametrize("limit", ["90", "20"])
def test_a_limit_that_is_not_reached_fails_as_ever(street, limit):
    street.suite.pytester.makepyfile(code_under_test=CODE)
    street.write("""
        from code_under_test import Model

        def test_it():
            assert Model(allocate(4 * MiB)).run(0) == "small"
    """)
    arguments = "-p", "pytest_cov", "--cov=code_under_test", f"--cov-fail-under={limit}"
    status = 0 if limit == "20" else 1
    assert street.beside(*arguments, apart=True).result.ret == status
    assert street.alone(*arguments, apart=True).result.ret == status


HOST = ("--gpu-leak=fail", "--gpu-leak-watch=host")


def test_what_a_running_function_holds_is_found_while_it_is_measured(street):
    pytest.importorskip("numpy")
    street.write("""
        import threading
        import numpy

        MAY_END = threading.Event()

        def hold(has_begun):
            local = numpy.ones(1 << 20)
            has_begun.set()
            MAY_END.wait(30)

        def test_leaks():
            has_begun = threading.Event()
            threading.Thread(target=hold, args=(has_begun,)).start()
            assert has_begun.wait(10)

        def test_ends():
            MAY_END.set()
    """)
    beside, _ = street.both("-p", "pytest_cov", "--cov=.", "--cov-report=", gate=HOST, apart=True)
    assert "held by thread 'Thread-1 (hold)' in test_it.hold: local" in beside.text
