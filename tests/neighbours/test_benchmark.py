"""pytest-benchmark: nothing of the plugin runs inside its rounds, and its table has each benchmark once."""

import json

import pytest

pytest.importorskip("pytest_benchmark")

BENCHMARK = ("-p", "benchmark", "--benchmark-json=figures.json", "--benchmark-min-rounds=5", "--benchmark-max-time=0")
MEASURED = """
    import fakegpu
    import sys

    SEEN = []

    @pytest.fixture(scope="module")
    def rounds():
        yield SEEN
        assert len(SEEN) >= 15, "each benchmark has had its rounds"
        assert set(SEEN) == {(None, None, 0)}

    def measure(benchmark):
        state = []

        def function():
            buffer = allocate(4 * MiB)
            node = [buffer]
            node.append(node)
            if state:
                SEEN.append((sys.gettrace(), sys.getprofile(), fakegpu.READS - state[0]))
            state[:] = [fakegpu.READS]

        benchmark.pedantic(function, rounds=20)

    def test_garbage_in_each_round(benchmark, rounds):
        measure(benchmark)

    def test_leaks(benchmark, rounds):
        KEPT.append(allocate(4 * MiB))
        measure(benchmark)

    def test_fixed_figures(benchmark):
        benchmark(lambda: None)

    def test_is_no_benchmark():
        pass
"""
COUNTS_READS = """
    fakegpu.READS = 0
    read = fakegpu.FakeProbe.read

    def counted(self):
        fakegpu.READS += 1
        return read(self)

    fakegpu.FakeProbe.read = counted
"""


def figures(street):
    found = json.loads((street.path / "figures.json").read_text(encoding="utf-8"))["benchmarks"]
    return [(one["fullname"], one["stats"]["rounds"] if "fixed" not in one["name"] else 0) for one in found]


@pytest.mark.parametrize("more", [(), ("--gpu-leak-confirm=1",)], ids=["", "confirmed"])
def test_rounds_are_left_alone_and_each_benchmark_is_there_once(street, more):
    street.write(MEASURED)
    street.conftest(COUNTS_READS)
    alone = street.alone(*BENCHMARK)
    expected = figures(street)
    beside = street.beside(*BENCHMARK, *more)
    assert figures(street) == expected
    assert [name.rpartition("::")[2] for name, _ in expected] == [
        "test_garbage_in_each_round",
        "test_leaks",
        "test_fixed_figures",
    ]
    assert beside.facts() == alone.facts()
    assert beside.leaky == {"test_it.py::test_leaks": 1}
    beside.result.stdout.fnmatch_lines(["given back: *"])


def test_a_benchmark_that_is_switched_off_is_judged_too(street):
    street.write(MEASURED.replace("len(SEEN) >= 15", "len(SEEN) == 0").replace("{(None, None, 0)}", "set()"))
    street.conftest(COUNTS_READS)
    beside, _ = street.both("-p", "benchmark", "--benchmark-disable")
    assert beside.leaky == {"test_it.py::test_leaks": 1}
