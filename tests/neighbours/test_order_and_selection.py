"""What changes the order, the choice or the number of tests: order, split, randomly, random-order, repeat, and env."""

import gc
import json

import pytest

from .street import MIXED, in_full

SHUFFLED = """
    import random

    @pytest.mark.parametrize("number", range(12))
    def test_number(number):
        drawn = random.random(), pytest.importorskip("numpy").random.rand()
        node = [allocate(2 * MiB)]
        node.append(node)
        print("DRAWN", number, *drawn)

    @pytest.mark.parametrize("number", range(3))
    def test_leaks(number):
        KEPT.append(allocate(4 * MiB))
"""


def drawn(seen):
    return [line[line.index("DRAWN") :] for line in seen.result.outlines if "DRAWN" in line]


def test_order(street):
    pytest.importorskip("pytest_order")
    street.write("""
        @pytest.mark.order(3)
        def test_third():
            node = [allocate(2 * MiB)]
            node.append(node)

        @pytest.mark.order(1)
        def test_first_leaks():
            KEPT.append(allocate(4 * MiB))

        @pytest.mark.order(before="test_first_leaks")
        def test_before():
            pass

        @pytest.mark.order(-1)
        def test_last():
            pass

        def test_fourth():
            pass
    """)
    beside, alone = street.both("-p", "pytest_order")
    assert beside.order == alone.order
    names = [test.rpartition("::")[2] for test in beside.order]
    assert names == ["test_before", "test_first_leaks", "test_third", "test_fourth", "test_last"]


def test_randomly(street):
    pytest.importorskip("pytest_randomly")
    street.write(SHUFFLED)
    beside, alone = street.both("-p", "randomly", "-s", "--randomly-seed=7")
    assert beside.order == alone.order
    assert beside.order != sorted(beside.order)
    assert len(drawn(beside)) == 12
    assert drawn(beside) == drawn(alone), "nothing of ours draws from the tests' random numbers"


@in_full
def test_randomly_with_workers(street):
    pytest.importorskip("pytest_randomly")
    pytest.importorskip("xdist")
    street.write(SHUFFLED)
    beside, _ = street.both("-p", "randomly", "-p", "xdist", "-n2", "--randomly-seed=7", apart=True)
    assert sum(beside.leaky.values()) == 3


def test_random_order(street):
    pytest.importorskip("random_order")
    street.write(SHUFFLED)
    street.write(MIXED, "test_other")
    arguments = "-p", "random_order", "--random-order-bucket=global", "--random-order-seed=5"
    beside, alone = street.both(*arguments)
    assert beside.order == alone.order
    assert beside.order != sorted(beside.order)


@pytest.mark.parametrize("algorithm", ["duration_based_chunks", "least_duration"])
def test_split(street, algorithm):
    pytest.importorskip("pytest_split")
    street.write(MIXED)
    street.write(SHUFFLED, "test_other")
    split = "-p", "pytest-split"
    durations = street.path / ".test_durations"
    street.alone(*split, "--store-durations")
    without = json.loads(durations.read_text(encoding="utf-8"))
    durations.unlink()
    street.beside(*split, "--store-durations")
    assert json.loads(durations.read_text(encoding="utf-8")).keys() == without.keys()
    durations.write_text(json.dumps(without), encoding="utf-8")
    groups = []
    for group in ("1", "2"):
        beside, alone = street.both(*split, "--splits=2", f"--group={group}", f"--splitting-algorithm={algorithm}")
        assert beside.order == alone.order
        groups.append(set(beside.order))
    assert not groups[0] & groups[1]
    assert len(groups[0] | groups[1]) == 12 + 15


def test_what_cleaning_takes_is_in_no_test_s_duration(street):
    pytest.importorskip("pytest_split")
    street.write("""
        def test_garbage():
            node = [allocate(4 * MiB)]
            node.append(node)
    """)
    street.conftest("""
        import time

        class Slow:
            name = "slow"

            def clean(self, occasion):
                time.sleep(0.5)
                return "slept"

        def pytest_gpuclean_cleaners(config):
            return [Slow()]
    """)
    beside = street.beside("-p", "pytest-split", "--store-durations", "-v")
    assert "slow: slept" in beside.text
    [duration] = json.loads((street.path / ".test_durations").read_text(encoding="utf-8")).values()
    assert duration < 0.4


@pytest.mark.parametrize("scope", ["function", "module", "session"])
def test_repeat(street, scope):
    pytest.importorskip("pytest_repeat")
    street.write("""
        def test_garbage():
            node = [allocate(2 * MiB)]
            node.append(node)

        def test_leaks():
            KEPT.append(allocate(4 * MiB))

        @pytest.mark.repeat(5)
        def test_more():
            buffer = allocate(2 * MiB)
    """)
    gc.disable()  # else Python collects some of the garbage by itself, in the middle of a test
    try:
        beside, alone = street.both("-p", "repeat", "--count=3", f"--repeat-scope={scope}")
    finally:
        gc.enable()
    assert beside.order == alone.order
    assert len(beside.order) == 3 + 3 + 5
    assert sum(beside.leaky.values()) == 3
    beside.result.stdout.fnmatch_lines(["given back: 6.0 MiB in 3 cleanups"])


def test_small_leaks_of_a_test_that_is_repeated_add_up(street):
    pytest.importorskip("pytest_repeat")
    street.write("""
        def test_small():
            KEPT.append(allocate(512 * KiB))
    """)
    seen = street.beside("-p", "repeat", "--count=20")
    seen.result.stdout.fnmatch_lines(
        ["LEAK test_it.py::test_small[[]20-20[]]: module test_it.py leaked 10.0 MiB over 20 tests*"]
    )


def test_env(street, monkeypatch):
    pytest.importorskip("pytest_env")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    street.ini("env =", "    CUDA_VISIBLE_DEVICES=3", "    D:GREETING=hello")
    street.write("""
        import os

        def test_sees_it():
            assert os.environ["CUDA_VISIBLE_DEVICES"] == "3"
            assert os.environ["GREETING"] == "hello"

        def test_leaks():
            KEPT.append(allocate(4 * MiB))
    """)
    street.both("-p", "env")


@in_full
def test_env_and_the_card_that_a_worker_was_assigned(street, monkeypatch):
    pytest.importorskip("pytest_env")
    pytest.importorskip("xdist")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    street.ini("env =", "    CUDA_VISIBLE_DEVICES=2,3")
    street.conftest("""
        import os

        AT_IMPORT = os.environ["CUDA_VISIBLE_DEVICES"]
    """)
    street.write("""
        import os

        @pytest.mark.parametrize("number", range(4))
        def test_sees_it(number):
            import conftest

            worker = os.environ["PYTEST_XDIST_WORKER"]
            assert os.environ["CUDA_VISIBLE_DEVICES"] == conftest.AT_IMPORT == {"gw0": "2", "gw1": "3"}[worker]
            assert "GPUCLEAN_ASSIGNED" not in os.environ
    """)
    seen = street.beside("-p", "env", "-p", "xdist", "-n2", "--gpu-assign=round-robin", apart=True)
    seen.result.assert_outcomes(passed=4)
