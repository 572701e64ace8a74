"""`gpu_require`: a test that needs cards that the machine has not got is skipped, with the figures."""

import os
import re
import sys
import time
from pathlib import Path

import pytest

from pytest_gpuclean.memory.torch import initialised_backends
from pytest_gpuclean.units import GiB

NO_DRIVER = "there is no driver"


@pytest.fixture(autouse=True)
def all_cards_visible(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.fixture
def machine(suite, monkeypatch):
    """An inner suite on a machine with such cards."""
    source = Path(__file__).with_name("fakecards.py").read_text(encoding="utf-8")
    suite.pytester.makepyfile(fakecards=source)
    torch = sys.modules.get("torch")
    if torch is not None and list(initialised_backends(torch)):  # by an earlier test: its devices would count
        monkeypatch.setattr(suite, "run", suite.run_apart)

    def build(cards, more=""):
        suite.pytester.makeconftest(f"""
            from fakecards import NVML, FakeNvml

            def pytest_configure(config):
                config.stash[NVML] = FakeNvml({cards})
            {more}
        """)
        return suite

    return build


def reasons(result):
    return [line.partition(": ")[2] for line in result.outlines if line.startswith("SKIPPED")]


MARKED = """
    @pytest.mark.gpu_require({arguments})
    def test_it():
        pass
"""


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ("", None),
        ("1", None),
        ("count=2, memory='12GiB'", None),
        ("2, '20GiB'", "needs 2 GPUs with 20.0 GiB: 1 of 2 has that (cuda:0 24.0 GiB, cuda:1 12.0 GiB)"),
        ("count='3'", "needs 3 GPUs: 2 are visible (cuda:0 24.0 GiB, cuda:1 12.0 GiB)"),
        ("memory=25769803777", "needs a GPU with 24.0 GiB: none of 2 has that (cuda:0 24576 MiB, cuda:1 12.0 GiB)"),
        ("free='25GiB'", "needs a GPU with 25.0 GiB free: none of 2 has that (cuda:0 24.0 GiB, cuda:1 12.0 GiB)"),
    ],
)
def test_a_test_without_the_cards_is_skipped_with_the_figures(machine, arguments, reason):
    suite = machine("24, 12")
    suite.write(MARKED.format(arguments=arguments))
    result = suite.run("-rs")
    assert reasons(result) == ([] if reason is None else [reason])
    result.assert_outcomes(passed=reason is None, skipped=reason is not None)


def test_the_place_of_the_skip_is_the_tests(machine):
    suite = machine("")
    suite.write(MARKED.format(arguments=""))
    suite.run("-rs").stdout.fnmatch_lines(["SKIPPED [[]1] test_it.py:8: needs a GPU: none is visible"])


def test_only_visible_cards_count(machine, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    suite = machine("24, 12")
    suite.write(MARKED.format(arguments="memory='24GiB'"))
    assert reasons(suite.run("-rs")) == [
        "needs a GPU with 24.0 GiB: none of 1 has that (cuda:0 12.0 GiB); CUDA_VISIBLE_DEVICES='1'"
    ]


def test_a_wrong_cuda_visible_devices_is_named(machine, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "zero")
    suite = machine("24")
    suite.write(MARKED.format(arguments=""))
    [reason] = reasons(suite.run("-rs"))
    assert reason == "needs a GPU: none is visible; CUDA_VISIBLE_DEVICES='zero': 'zero' is no number and no UUID"


def test_what_the_closest_marker_does_not_say_comes_from_the_next(machine):
    suite = machine("24, 24")
    suite.write("""
        pytestmark = pytest.mark.gpu_require(count=3)

        @pytest.mark.gpu_require(memory="48GiB")
        class TestIt:
            @pytest.mark.gpu_require(count=2)
            def test_two(self):
                pass

            def test_three(self):
                pass

            @pytest.mark.gpu_require(2, "20GiB")
            def test_fits(self):
                pass
    """)
    result = suite.run("-rs")
    assert sorted(re.sub(r" \(.*", "", reason) for reason in reasons(result)) == [
        "needs 2 GPUs with 48.0 GiB: none of 2 has that",
        "needs 3 GPUs with 48.0 GiB: 2 are visible",
    ]
    result.assert_outcomes(passed=1, skipped=2)


def test_a_parameter_may_have_its_own(machine):
    suite = machine("24")
    suite.write("""
        @pytest.mark.parametrize("size", [
            1, pytest.param(80, marks=pytest.mark.gpu_require(memory="80GiB")),
        ])
        def test_it(size):
            assert size == 1
    """)
    suite.run().assert_outcomes(passed=1, skipped=1)


def test_a_unittest_case_may_have_it(machine):
    suite = machine("24")
    suite.write("""
        import unittest

        @pytest.mark.gpu_require(2)
        class TestIt(unittest.TestCase):
            @classmethod
            def setUpClass(cls):
                raise OSError("set up without cards")

            def test_it(self):
                pass
    """)
    suite.run().assert_outcomes(skipped=1)


def test_no_fixture_comes_up_for_a_test_that_is_skipped(machine):
    suite = machine("24")
    suite.write("""
        @pytest.fixture(scope="session", autouse=True)
        def model():
            raise OSError("came up")

        @pytest.mark.gpu_require(2)
        def test_it():
            pass
    """)
    suite.run().assert_outcomes(skipped=1)


def test_a_test_that_is_skipped_anyway_asks_for_no_cards(machine):
    suite = machine(
        "24",
        more="""
            def pytest_unconfigure(config):
                assert config.stash[NVML].reads == 0
    """,
    )
    suite.write("""
        @pytest.mark.skip(reason="later")
        @pytest.mark.gpu_require(2)
        def test_it():
            pass
    """)
    result = suite.run("-rs")
    assert reasons(result) == ["later"]


@pytest.mark.parametrize(
    "arguments", [[], ["--gpu-clean=off"], ["--gpu-clean=quick"], ["--gpu-leak=fail"]], ids=" ".join
)
def test_a_requirement_holds_whatever_else_is_on(machine, arguments):
    suite = machine("24")
    suite.write(MARKED.format(arguments="2"))
    suite.run(*arguments).assert_outcomes(skipped=1)


def test_a_requirement_alone_brings_nothing_else_up(machine):
    suite = machine("24")
    suite.write("""
        @pytest.mark.gpu_require
        def test_it(pytestconfig):
            names = {name for name, _ in pytestconfig.pluginmanager.list_name_plugin() if "gpuclean" in name}
            assert names == {"gpuclean", "gpuclean-needs"}
    """)
    suite.run().assert_outcomes(passed=1)


@pytest.mark.parametrize("workers", [[], ["-p", "xdist", "-n0"], ["-p", "xdist", "-n2"]], ids=["none", "n0", "n2"])
def test_a_requirement_is_the_same_with_workers(machine, workers):
    pytest.importorskip("xdist")
    suite = machine("24, 12")
    suite.write(MARKED.format(arguments="2, '20GiB'"))
    result = suite.run_apart("-rs", *workers)
    result.assert_outcomes(skipped=1)
    assert reasons(result) == ["needs 2 GPUs with 20.0 GiB: 1 of 2 has that (cuda:0 24.0 GiB, cuda:1 12.0 GiB)"]


# -- where the driver cannot say --------------------------------------------------------------------------------------


def test_cards_that_cannot_be_measured_are_no_cards(machine):
    suite = machine(f"reason={NO_DRIVER!r}")
    suite.write(MARKED.format(arguments="memory='1GiB'"))
    [reason] = reasons(suite.run("-rs"))
    why = f"nvml: {NO_DRIVER}, and no framework has initialised a device yet"
    assert reason == f"needs a GPU with 1.0 GiB: cannot be measured: {why}"


def test_trouble_with_the_driver_skips_and_says_so(machine):
    suite = machine(
        "24",
        more="""
                config.stash[NVML].visibility = lambda: 1 / 0
    """,
    )
    suite.write(MARKED.format(arguments="memory='1GiB'"))
    [reason] = reasons(suite.run_apart("-rs"))
    assert reason == "needs a GPU with 1.0 GiB: cannot be measured: ZeroDivisionError: division by zero"


@pytest.fixture
def simulated(suite, simgpu, monkeypatch):
    """An inner suite that has the simulated accelerator, with 64 MiB on each of two devices."""
    paths = [str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    suite.pytester.makeconftest("""
        import simgpu

        simgpu.load()
        simgpu.control.set_capacity(0, 64 * 2**20)
        simgpu.control.set_capacity(1, 64 * 2**20)
    """)
    suite.pytester.makepyfile(
        taking="""
        import torch

        def take(mib):
            return torch.empty(mib * 2**20, dtype=torch.uint8, device="simgpu:0")
    """
    )
    return lambda text: suite.write(text, header="import pytest\nfrom taking import take") or suite


def test_an_accelerator_of_another_kind_is_asked_once_it_is_in_use(simulated):
    suite = simulated("""
        @pytest.mark.gpu_require(memory="4MiB")
        def test_before():
            pass

        def test_uses():
            take(1)

        @pytest.mark.gpu_require(2, memory="64MiB")
        def test_fits():
            pass

        @pytest.mark.gpu_require(2, memory="65MiB")
        def test_does_not():
            pass
    """)
    result = suite.run_apart("-rs")
    result.assert_outcomes(passed=2, skipped=2)
    first, second = sorted(reasons(result))
    assert first == "needs 2 GPUs with 65.0 MiB: none of 2 has that (simgpu:0 64.0 MiB, simgpu:1 64.0 MiB)"
    assert "cannot be measured" in second


def test_what_this_process_has_cached_is_given_back_first(simulated):
    suite = simulated("""
        def test_caches():
            take(60)

        @pytest.mark.gpu_require(2, free="60MiB")
        def test_fits():
            pass
    """)
    suite.run_apart("-rs").assert_outcomes(passed=2)


def test_what_a_failed_test_pins_is_let_go_first(simulated):
    suite = simulated("""
        def test_fails():
            pinned = take(60)
            assert 0

        @pytest.mark.gpu_require(2, free="60MiB")
        def test_fits():
            pass
    """)
    suite.run_apart("-rs").assert_outcomes(passed=1, failed=1)


def test_what_a_live_fixture_of_this_process_holds_is_not_waited_for(simulated):
    suite = simulated("""
        @pytest.fixture(scope="module")
        def model():
            return take(60)

        def test_holds(model):
            pass

        @pytest.mark.gpu_require(2, free="32MiB")
        def test_needs(model):
            pass
    """)
    begin = time.monotonic()
    result = suite.run_apart("-rs", "--gpu-settle=60", settle=True)
    assert time.monotonic() - begin < 40
    assert reasons(result) == [
        (
            "needs 2 GPUs with 32.0 MiB free: 1 of 2 has that (simgpu:0 4.0 MiB free of 64.0 MiB, "
            "simgpu:1 64.0 MiB free of 64.0 MiB); simgpu:0 is held by this test process: 60.0 MiB"
        )
    ]


# -- waiting for free memory ------------------------------------------------------------------------------------------


def timed(suite, *arguments):
    begin = time.monotonic()
    result = suite.run(*arguments, settle=True)
    return result, time.monotonic() - begin


def test_free_memory_that_comes_back_in_time_is_waited_for(machine):
    suite = machine("24, used_gib=[20], freed_after=0.5")
    suite.write(MARKED.format(arguments="free='8GiB'"))
    result, seconds = timed(suite, "--gpu-settle=20")
    result.assert_outcomes(passed=1)
    assert 0.5 <= seconds < 10


def test_at_the_bound_the_skip_says_who_holds_it(machine):
    suite = machine(f"24, used_gib=[20], holder={os.getppid()}")
    suite.write(MARKED.format(arguments="free='8GiB'"))
    result, _ = timed(suite, "--gpu-settle=0.2", "-rs")
    [reason] = reasons(result)
    assert reason.startswith(
        "needs a GPU with 8.0 GiB free: none of 1 has that (cuda:0 4.0 GiB free of 24.0 GiB), after 200 ms; "
        f"cuda:0 is held by pid {os.getppid()} "
    )
    assert reason.endswith(": 20.0 GiB")


def test_a_long_wait_is_told(machine):
    suite = machine("24, used_gib=[20]")
    suite.write(MARKED.format(arguments="free='8GiB'"))
    result, _ = timed(suite, "--gpu-settle=4")
    result.stdout.fnmatch_lines(["gpuclean: waiting for free memory: a test needs a GPU with 8.0 GiB free: none of 1*"])


def test_what_can_never_be_free_is_not_waited_for(machine):
    suite = machine("24, used_gib=[20]")
    suite.write(MARKED.format(arguments="free='30GiB'"))
    result, seconds = timed(suite, "--gpu-settle=30")
    result.assert_outcomes(skipped=1)
    assert seconds < 10


def test_a_wait_in_vain_is_not_repeated_in_full_for_each_test(machine):
    suite = machine("24, used_gib=[20]")
    suite.write("""
        @pytest.mark.gpu_require(free="8GiB")
        @pytest.mark.parametrize("number", range(20))
        def test_it(number):
            pass
    """)
    result, seconds = timed(suite, "--gpu-settle=2")
    result.assert_outcomes(skipped=20)
    assert 2 <= seconds < 12  # in full it would be 40


def test_the_real_library_for_nvidia_is_asked(suite, monkeypatch):
    pytest.importorskip("pynvml")
    fakenvml = pytest.importorskip("fakenvml")
    if fakenvml.unavailable_reason() is not None:
        pytest.skip(fakenvml.unavailable_reason())
    world = fakenvml.World(suite.pytester.path).card("GPU-a", total=24 * GiB).card("GPU-b", total=12 * GiB)
    world.process(os.getppid(), 20 * GiB).write()
    for name, value in world.environment().items():
        monkeypatch.setenv(name, value)
    suite.write("""
        import sys

        @pytest.mark.gpu_require(2, "20GiB")
        def test_total():
            pass

        @pytest.mark.gpu_require(memory="20GiB", free="8GiB")
        def test_free():
            pass

        @pytest.mark.gpu_require(2, free="4GiB")
        def test_fits():
            assert "torch" not in sys.modules
    """)
    result = suite.run_apart("-rs", "--gpu-settle=0.1", settle=True)
    result.assert_outcomes(passed=1, skipped=2)
    total, free = sorted(reasons(result))
    assert total == "needs 2 GPUs with 20.0 GiB: 1 of 2 has that (cuda:0 24.0 GiB, cuda:1 12.0 GiB)"
    assert free.startswith(
        "needs a GPU with 20.0 GiB, of that 8.0 GiB free: none of 2 has that (cuda:0 4.0 GiB free of 24.0 GiB, "
        "cuda:1 12.0 GiB free of 12.0 GiB), after 100 ms; cuda:0 is held by "
    )
    assert f" pid {os.getppid()} " in free
    assert free.endswith(": 20.0 GiB")


# -- refused ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("marker", "says"),
    [
        ("gpu_require(count=0)", "count=0 needs nothing; write 1 or more"),
        ("gpu_require(count=-1)", "count: -1 is no count"),
        ("gpu_require(count='two')", "count: 'two' is no count"),
        ("gpu_require(count=True)", "count: True is no count"),
        ("gpu_require(count=1.5)", "count: 1.5 is no count"),
        ("gpu_require(memory='lots')", "memory: 'lots' is no size"),
        ("gpu_require(memory=-5)", "memory: -5 is no size"),
        ("gpu_require(free='8 G')", "free: '8 G' is no size"),
        ("gpu_require(1, '1GiB', '1GiB', '1GiB')", "4 arguments does not fit gpu_require(count=1"),
        ("gpu_require(cards=2)", "cards does not fit"),
        ("gpu_require(2, count=2)", "count does not fit"),
    ],
)
def test_a_marker_that_does_not_parse_is_refused_before_any_test(machine, marker, says):
    suite = machine("24")
    suite.write(f"""
        @pytest.mark.{marker}
        def test_it():
            print("RAN")
    """)
    assert_refused(suite.run("-s"), says)


def test_a_worker_tells_its_controller_what_it_refuses(machine):
    pytest.importorskip("xdist")
    suite = machine("24")
    suite.write("""
        @pytest.mark.gpu_require(0)
        def test_it():
            print("RAN")
    """)
    assert_refused(suite.run_apart("-s", "-p", "xdist", "-n1"), "count=0 needs nothing")


def assert_refused(result, says):
    text = result.stdout.str() + result.stderr.str()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert f"@pytest.mark.gpu_require on test_it.py::test_it: {says}" in text
    assert "RAN" not in text
    assert "INTERNALERROR" not in text
