"""Hypothesis: many examples in one test, and a leak in one of them."""

import re
from collections import Counter

import pytest
from conftest import TESTS

from .street import in_full

pytest.importorskip("hypothesis")

HYPOTHESIS = ("-p", "hypothesispytest")
HEADER = """
import pytest
import fakegpu
from fakegpu import KiB, MiB, allocate
from hypothesis import HealthCheck, given, settings, strategies as st

settings.register_profile("here", database=None, derandomize=True, max_examples=30, deadline=None)
settings.load_profile("here")
KEPT = []
EXAMPLES = []
"""


def examples(seen):
    """How many examples each test has had: of which values depends on the modules that Hypothesis has met."""
    return Counter(re.findall(r"EXAMPLE (\w+)", seen.text))


@in_full
def test_examples_and_outcomes(street):
    street.write(
        """
        @given(st.integers(1, 8))
        def test_frees(size):
            print("EXAMPLE", "frees", size)
            buffer = allocate(size * MiB)

        @given(st.integers(1, 8))
        def test_garbage(size):
            node = [allocate(size * MiB)]
            node.append(node)

        @given(st.integers(0, 100))
        def test_leaks_in_one_example(number):
            print("EXAMPLE", "leaks", number)
            if number > 90 and not KEPT:
                KEPT.append(allocate(4 * MiB))

        @given(st.integers(0, 1000))
        def test_fails(number):
            buffer = allocate(16 * MiB)
            assert number < 17

        @given(st.sampled_from([1, 2, 3]))
        @settings(max_examples=3)
        def test_last(size):
            buffer = allocate(size * MiB)
    """,
        header=HEADER,
    )
    beside, alone = street.both(*HYPOTHESIS, "-s", apart=True)
    assert beside.order == alone.order
    assert examples(beside) == examples(alone) == {"frees": 8, "leaks": 30}
    assert beside.leaky == {"test_it.py::test_leaks_in_one_example": 1}
    beside.result.stdout.fnmatch_lines(["*ing *: test_fails(", "*number=17,"])
    assert "Flaky" not in beside.text


@in_full
def test_small_leaks_of_each_example_add_up_to_the_tests(street):
    street.write(
        """
        @given(st.integers(1, 8))
        def test_leaks(size):
            KEPT.append(allocate(200 * KiB))
    """,
        header=HEADER,
    )
    beside, _ = street.both(*HYPOTHESIS, apart=True)
    [text] = [report.text for report in beside.reports if report.outcome == "failed"]
    size = float(re.search(r"leaked (\d\.\d) MiB on fake:0", text)[1])
    assert size >= 200 * 8 / 1024 - 0.1  # Hypothesis has had each of the eight


def test_a_block_finds_the_example_that_leaks(street):
    street.write(
        """
        @given(number=st.integers(0, 100))
        def test_finds_it(gpu_clean_module, number):
            with gpu_clean_module.no_leak():
                if number >= 42:
                    KEPT.append(allocate(4 * MiB))
                    gpu_clean_module.on_cleanup(KEPT.clear)
    """,
        header=HEADER,
    )
    seen = street.beside(*HYPOTHESIS, apart=True)
    assert "gpuclean: " in seen.text
    assert "leaked 4.0 MiB on fake:0" in seen.text
    assert re.search(r"ing \w+( \w+)?: test_finds_it\(\n.*number=42,", seen.text, re.DOTALL)


@in_full
def test_an_example_that_runs_again_to_confirm_a_leak_is_no_failure_of_hypothesis(street):
    street.write(
        """
        @given(st.integers(0, 100))
        def test_kept_once(number):
            if not KEPT:
                KEPT.append(allocate(4 * MiB))

        @given(st.integers(0, 100))
        def test_leaks(number):
            KEPT.append(allocate(4 * MiB))
    """,
        header=HEADER,
    )
    beside, _ = street.both(*HYPOTHESIS, gate=("--gpu-leak=fail", "--gpu-leak-confirm=1"), apart=True)
    beside.result.stdout.fnmatch_lines(["KEPT test_it.py::test_kept_once: *"])


@in_full
def test_tensors_of_examples_on_a_simulated_accelerator(street, simgpu):
    street.conftest(f"""
        import sys

        sys.path.insert(0, {str(TESTS)!r})
        import simgpu

        simgpu.load()
    """)
    street.write(
        """
        import torch

        @given(st.integers(1, 64))
        def test_frees(rows):
            tensor = torch.zeros(rows, 1024, 4, device="simgpu")

        @given(st.integers(1, 64))
        def test_fails(rows):
            tensor = torch.zeros(1024, 1024, device="simgpu")
            raise ValueError("own reason")

        @given(st.integers(1, 64))
        def test_leaks(rows):
            KEPT.append(torch.zeros(64, 1024, device="simgpu"))
    """,
        header=HEADER,
    )
    beside, _ = street.both(*HYPOTHESIS, apart=True)
    assert beside.leaky == {"test_it.py::test_leaks": 1}
    assert "held by test_it.KEPT" in beside.text
