"""All neighbours that are installed, found by their entry points, in one run."""

import importlib.metadata

import pytest

from .street import MIXED, in_full

pytestmark = in_full
WANTED = {"xdist", "rerunfailures", "pytest_cov", "timeout", "asyncio", "anyio", "benchmark", "hypothesispytest"}
NOT_TOGETHER = ("no:random_order", "no:randomly", "no:rich", "no:sugar", "no:flaky", "no:memray")
"""They change the order or the looks, each by itself; flaky takes the protocol from all the others."""
CROWD = """
    import asyncio
    import unittest

    @pytest.mark.asyncio
    async def test_coroutine_leaks():
        await asyncio.sleep(0)
        KEPT.append(allocate(4 * MiB))

    @pytest.mark.timeout(30)
    @pytest.mark.order(2)
    def test_with_marks_of_others():
        node = [allocate(2 * MiB)]
        node.append(node)

    @pytest.mark.flaky(reruns=1)
    def test_fails_once():
        RUNS.append(1)
        buffer = allocate(16 * MiB)
        assert len(RUNS) > 1

    RUNS = []

    class TestCase(unittest.TestCase):
        def test_it(self):
            self.buffer = allocate(4 * MiB)
            with self.subTest(number=1):
                pass
"""


@pytest.fixture
def crowd(street, monkeypatch):
    """The options that a run beside all of them needs."""
    found = {entry.name for entry in importlib.metadata.entry_points(group="pytest11")}
    if not found >= WANTED:
        pytest.skip(f"not installed: {', '.join(sorted(WANTED - found))}")
    monkeypatch.delenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD")
    street.ini("asyncio_default_fixture_loop_scope = function")
    street.write(MIXED)
    street.write(CROWD, "test_crowd")
    return [part for name in NOT_TOGETHER for part in ("-p", name)]


@pytest.mark.parametrize("more", [(), ("-n2",), ("--cov=.", "--timeout=60", "--html=report.html")], ids=" ".join)
def test_all_together(street, crowd, more):
    beside, alone = street.both(*crowd, *more, apart=True)
    assert sorted(beside.order) == sorted(alone.order)
    assert {test.rpartition("::")[2] for test in beside.leaky} == {
        "test_leaks",
        "test_leaks_too",
        "test_coroutine_leaks",
    }
    assert set(beside.leaky.values()) == {1}
    beside.result.stdout.fnmatch_lines(["given back: *"])


def test_all_together_and_everything_of_the_plugin(street, crowd):
    gate = (
        *("--gpu-clean=comprehensive", "--gpu-leak-confirm=1", "--gpu-leak-watch=all", "--gpu-oom-retry=1"),
        *("--gpu-report=report.json", "--gpu-report=report.html", "--gpu-peak-limit=1GiB", "--gpu-leak-trace=on"),
    )
    street.both(*crowd, "--cov=.", "--timeout=60", gate=gate, apart=True)
