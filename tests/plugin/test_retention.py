"""What pytest keeps of a test is let go in time, and nobody who looks at it misses anything."""

import re
import sys
from importlib.util import find_spec

import pytest

from pytest_gpuclean.plugin.retention import clear_frames

# Some of these run apart: in this process pytester's own record of every hook call keeps the exceptions.
FAILS = """
    def helper(buffer):
        inner = [buffer]
        raise ValueError("its own reason")

    def test_fails():
        buffer = allocate(64 * MiB)
        text = "a local of the test"
        helper(buffer)

    def test_next():
        import fakegpu
        assert fakegpu.IN_USE == [0, 0]
"""


def test_the_locals_of_a_failed_test_are_free_before_the_next_one(suite):
    suite.write(FAILS)
    result = suite.run("--gpu-leak=fail")
    result.assert_outcomes(failed=1, passed=1)
    result.stdout.no_fnmatch_line("*leaked*")


@pytest.mark.parametrize(
    "body",
    [
        "pytest.skip('later')",
        "pytest.xfail('known')",
        "pytest.fail('own reason', pytrace=False)",
        "raise ExceptionGroup('several', [ValueError(1), KeyError(2)])",
        "raise SystemExit(3)",
        "raise KeyError('outer') from ValueError('inner')",
    ],
    ids=["skip", "xfail", "fail", "group", "exit", "chained"],
)
def test_whatever_ends_a_test_its_locals_are_free(suite, body):
    if "ExceptionGroup" in body and sys.version_info < (3, 11):
        pytest.skip("exception groups came with Python 3.11")
    suite.write(f"""
        def test_ends():
            buffer = allocate(64 * MiB)
            {body}

        def test_next():
            import fakegpu
            assert fakegpu.IN_USE == [0, 0]
    """)
    result = suite.run_apart("--gpu-leak=fail", "test_it.py")
    result.stdout.no_fnmatch_line("*leaked*")
    assert result.parseoutcomes()["passed"] == 1


def test_the_locals_of_an_xfail_test_are_free_before_the_next_one(suite):
    suite.write("""
        @pytest.mark.xfail
        def test_fails():
            buffer = allocate(64 * MiB)
            assert 0

        def test_next():
            import fakegpu
            assert fakegpu.IN_USE == [0, 0]
    """)
    suite.run("--gpu-leak=fail").assert_outcomes(xfailed=1, passed=1)


def test_the_locals_of_a_failed_fixture_are_free_before_the_next_test(suite):
    suite.write("""
        @pytest.fixture
        def broken_setup():
            buffer = allocate(64 * MiB)
            raise OSError("at setup")

        @pytest.fixture
        def broken_teardown():
            yield
            buffer = allocate(64 * MiB)
            raise OSError("at teardown")

        def test_setup(broken_setup):
            pass

        def test_between():
            import fakegpu
            assert fakegpu.IN_USE == [0, 0]

        def test_teardown(broken_teardown):
            pass

        def test_after():
            import fakegpu
            assert fakegpu.IN_USE == [0, 0]
    """)
    result = suite.run_apart("--gpu-leak=fail")
    result.assert_outcomes(passed=3, errors=2)
    result.stdout.no_fnmatch_line("*leaked*")


def test_fixture_values_and_instance_attributes_of_real_tensors_are_free(suite, simgpu, no_garbage):
    suite.write("""
        import torch

        def on_device():
            return torch.empty(8 * MiB, dtype=torch.uint8, device="simgpu:0")

        @pytest.fixture
        def tensor():
            return on_device()

        def test_fixture(tensor):
            pass

        class TestIt:
            def test_attribute(self):
                self.tensor = on_device()

            def test_fails(self):
                self.tensor = on_device()
                local = on_device()
                assert 0
    """)
    result = suite.run("--gpu-leak=fail")
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.no_fnmatch_line("*leaked*")


def test_a_unittest_case_that_fails_lets_go(suite):
    suite.write("""
        import unittest

        class TestIt(unittest.TestCase):
            def test_fails(self):
                buffer = allocate(64 * MiB)
                self.assertEqual(1, 2)

            def test_next(self):
                import fakegpu
                assert fakegpu.IN_USE == [0, 0]
    """)
    result = suite.run_apart("--gpu-leak=fail")
    result.assert_outcomes(failed=1, passed=1)
    result.stdout.no_fnmatch_line("*leaked*")


WITH_FLAKY = pytest.param(
    ("-p", "flaky"), id="flaky", marks=pytest.mark.skipif(find_spec("flaky") is None, reason="needs flaky")
)


@pytest.mark.parametrize("options", [pytest.param((), id="alone"), WITH_FLAKY])
@pytest.mark.parametrize("base", ["object", "unittest.TestCase", "unittest.IsolatedAsyncioTestCase"])
def test_the_instance_of_a_test_goes_whole_and_finds_its_attributes_at_its_end(suite, base, options):
    suite.write(f"""
        import unittest

        SIZES = []

        class TestIt({base}):
            def __del__(self):
                SIZES.append(self.buffer.size_bytes if "_one" in repr(vars(self)) else 0)
                if hasattr({base}, "__del__"):
                    {base}.__del__(self)

            def test_one(self):
                self.buffer, self.name = allocate(64 * MiB), "_one"

            def test_two(self):
                import fakegpu
                assert fakegpu.IN_USE == [0, 0]
                assert SIZES[-1] == 64 * MiB
    """)
    result = suite.run_apart("--gpu-leak=fail", "-Werror", *options)
    result.assert_outcomes(passed=2)


@pytest.mark.parametrize("options", [pytest.param((), id="alone"), WITH_FLAKY])
def test_an_instance_that_somebody_keeps_is_left_as_it_is(suite, options):
    suite.write("""
        class TestIt:
            def test_keeps(self):
                self.buffer = allocate(64 * MiB)
                KEPT.append(self)

            def test_next(self):
                assert KEPT[0].buffer.size_bytes == 64 * MiB
    """)
    result = suite.run_apart("--gpu-leak=fail", *options)
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["ERROR test_it.py::TestIt::test_keeps - *leaked 64.0 MiB*"])


@pytest.mark.skipif(find_spec("flaky") is None, reason="needs flaky")
def test_what_flaky_runs_again_is_an_instance_of_its_own(suite):
    suite.write("""
        RUNS = []

        class TestIt:
            @pytest.mark.flaky(max_runs=3)
            def test_comes_right(self):
                self.buffer = allocate(64 * MiB)
                RUNS.append(self.buffer.size_bytes)
                assert len(RUNS) == 3

            def test_next(self):
                import fakegpu
                assert fakegpu.IN_USE == [0, 0]
    """)
    result = suite.run_apart("--gpu-leak=fail", "-p", "flaky")
    result.assert_outcomes(passed=2)
    result.stdout.no_fnmatch_line("*leaked*")


def test_the_arguments_of_log_records_are_free(suite):
    suite.write("""
        import logging

        def test_logs(caplog):
            buffer = allocate(64 * MiB)
            logging.getLogger().warning("made %r", buffer)
            assert caplog.records

        def test_next():
            import fakegpu
            assert fakegpu.IN_USE == [0, 0]
    """)
    suite.run_apart("--gpu-leak=fail").assert_outcomes(passed=2)


# -- nobody misses anything -------------------------------------------------------------------------------------------


def failures(result):
    text = re.split(r"=+ (?:gpuclean|short test summary info) =+", result.stdout.str())[0]
    return re.sub(r"0x[0-9a-f]+", "", text[text.index("= FAILURES =") :])


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["-l"],
        ["--tb=auto"],
        ["--tb=long"],
        ["--tb=short"],
        ["--tb=line"],
        ["--tb=native"],
        ["-l", "--tb=long", "-vv"],
    ],
    ids=" ".join,
)
def test_a_failure_reads_the_same_with_and_without(suite, arguments):
    suite.write("""
        def helper(buffer):
            inner = [buffer]
            raise ValueError("its own reason")

        def test_fails():
            buffer = allocate(64 * MiB)
            text = "a local of the test"
            helper(buffer)

        def test_chained():
            try:
                helper(allocate(1))
            except ValueError as error:
                raise KeyError("another") from error

        def test_compares():
            local = [1, 2]
            assert local == [1, 3]
    """)
    on, off = suite.run("--gpu-leak=fail", *arguments), suite.run(*arguments)
    assert failures(on) == failures(off)


def test_a_debugger_finds_the_locals_of_a_failed_test(suite):
    suite.write("""
        def test_fails():
            buffer = allocate(64 * MiB)
            local = "a local of the test"
            assert 0
    """)
    suite.conftest("""
        def pytest_exception_interact(node, call, report):
            if isinstance(node, pytest.Item):
                frame = call.excinfo.traceback[-1].frame
                print("SEEN", frame.f_locals.get("local"))
    """)
    result = suite.run("--gpu-leak=fail", "-s")
    result.stdout.fnmatch_lines(["*SEEN a local of the test"])


@pytest.mark.parametrize("argument", ["--pdb", "--trace"])
def test_frames_stay_as_they_are_under_a_debugger(suite, argument):
    suite.write("""
        import sys

        def test_fails():
            buffer = allocate(64 * MiB)
            local = "a local of the test"
            assert 0
    """)
    suite.conftest("""
        import sys

        class NoDebugger:
            def __init__(self, *arguments, **more):
                pass

            def reset(self): pass
            def interaction(self, *arguments): pass
            def set_trace(self, *arguments, **more): pass
            def runcall(self, function, *arguments, **more): return function(*arguments, **more)
            def setup(self, *arguments): pass

        def pytest_sessionfinish(session):
            error = sys.last_value
            while error.__traceback__.tb_next is not None:
                error.__traceback__ = error.__traceback__.tb_next
            print("SEEN", error.__traceback__.tb_frame.f_locals.get("local"))
    """)
    result = suite.run("--gpu-leak=fail", argument, "--pdbcls=conftest:NoDebugger", "-s")
    result.stdout.fnmatch_lines(["*SEEN a local of the test"])
    result.stdout.no_fnmatch_line("*ERROR at teardown*")


def test_a_suspended_generator_in_a_traceback_is_not_closed(suite):
    suite.write("""
        @pytest.fixture(scope="module")
        def resource():
            try:
                yield "open"
            finally:
                print("CLOSED")

        def numbers():
            try:
                yield 1
                yield 2
            finally:
                ENDED.append(1)

        ENDED = []
        RUNNING = numbers()

        def test_fails(resource):
            next(RUNNING)
            running = RUNNING
            assert 0

        def test_goes_on(resource):
            assert ENDED == []
            assert next(RUNNING) == 2
            print("AFTER")
    """)
    result = suite.run("--gpu-leak=fail", "-s")
    result.assert_outcomes(failed=1, passed=1)
    result.stdout.fnmatch_lines(["*AFTER", "*CLOSED"])


def test_a_fixture_that_yields_while_it_handles_an_error_goes_on(suite):
    suite.write("""
        @pytest.fixture(scope="module")
        def resource():
            try:
                raise KeyError("first")
            except KeyError:
                yield "open"
            print("CLOSED")

        def test_fails(resource):
            raise ValueError("its own reason")

        def test_goes_on(resource):
            print("AFTER")
    """)
    result = suite.run("--gpu-leak=fail", "-s")
    result.assert_outcomes(failed=1, passed=1)
    result.stdout.fnmatch_lines(["*AFTER", "*CLOSED"])


def test_a_value_of_a_wider_fixture_stays(suite):
    suite.write("""
        @pytest.fixture(scope="module")
        def model():
            return {"buffer": allocate(4 * MiB)}

        def test_fails(model):
            assert 0

        def test_next(model):
            assert "buffer" in model
    """)
    suite.run_apart("--gpu-leak=fail").assert_outcomes(failed=1, passed=1)


def test_an_error_of_a_wider_fixture_is_told_to_each_test_in_full(suite):
    suite.write("""
        @pytest.fixture(scope="module")
        def model():
            local = "a local of the fixture"
            raise OSError("no weights")

        def test_first(model):
            pass

        def test_second(model):
            pass
    """)
    result = suite.run("--gpu-leak=fail", "-l")
    result.assert_outcomes(errors=2)
    assert result.stdout.str().count("local      = 'a local of the fixture'") == 2


# -- frames by themselves ---------------------------------------------------------------------------------------------


class Marker:
    pass


def raise_with_local(marker):
    local = marker
    raise ValueError(type(local).__name__)


def caught(function, *arguments):
    try:
        function(*arguments)
    except BaseException as error:
        return error


def locals_of(error):
    traceback = error.__traceback__
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    return traceback.tb_frame.f_locals


def test_frames_are_emptied_also_after_somebody_has_read_them():
    error = caught(raise_with_local, Marker())
    assert "local" in locals_of(error)
    clear_frames(error)
    assert locals_of(error) == {}


def raise_from():
    try:
        raise_with_local(Marker())
    except ValueError as error:
        raise KeyError from error


def raise_in_handler():
    try:
        raise_with_local(Marker())
    except ValueError:
        raise KeyError  # noqa: B904


@pytest.mark.parametrize(("function", "link"), [(raise_from, "__cause__"), (raise_in_handler, "__context__")])
def test_what_an_error_was_raised_from_is_emptied_too(function, link):
    error = caught(function)
    clear_frames(error)
    assert locals_of(getattr(error, link)) == {}


def test_errors_that_refer_to_each_other_end():
    first, second = caught(raise_with_local, Marker()), caught(raise_with_local, Marker())
    first.__cause__, second.__cause__ = second, first
    clear_frames(first)
    assert locals_of(second) == {}


def test_nothing_to_clear_is_fine():
    clear_frames(None)
    clear_frames(ValueError("never raised"))


def test_a_frame_that_is_running_is_left_alone():
    local = "still here"
    try:
        raise ValueError("now")
    except ValueError as error:
        clear_frames(error)
    assert local == "still here"


WARNS = """
    import warnings

    def test_warns():
        warnings.warn(UserWarning("not contiguous:", allocate(4 * MiB)))

    def test_warns_of_a_source():
        source = allocate(4 * MiB)
        source.itself = source
        warnings.warn("unclosed", ResourceWarning, source=source)

    def test_next():
        import fakegpu
        assert fakegpu.IN_USE == [0, 0]
"""


def test_what_warnings_refer_to_is_let_go_of_and_their_texts_stay(suite):
    suite.write(WARNS)
    texts = []
    for options in (["--gpu-leak=fail"], ["-p", "no:gpuclean", "--deselect=test_it.py::test_next"]):
        result = suite.run_apart("-Wdefault", *options)
        assert result.parseoutcomes().keys() <= {"passed", "warnings", "deselected"}
        lines = result.outlines
        start = next(number for number, line in enumerate(lines) if "warnings summary" in line)
        end = next(number for number, line in enumerate(lines) if "Docs: " in line)
        texts.append([re.sub("0x[0-9a-f]+", "0x", line) for line in lines[start:end]])
    assert texts[0] == texts[1]
    assert any("not contiguous:" in line and "Buffer" in line for line in texts[0])
    assert any("Enable tracemalloc" in line for line in texts[0])


@pytest.mark.parametrize("text", ["", "def __str__(self): return f'{self.args[0].size_bytes} bytes'"])
def test_a_warning_that_somebody_else_has_or_that_has_its_own_text_keeps_its_arguments(suite, text):
    suite.write(f"""
        import warnings

        class Slow(UserWarning):
            {text or "pass"}

        def test_warns():
            warning = Slow(allocate(4 * MiB))
            warnings.warn(warning)
            {"" if text else "KEPT.append(warning)"}
    """)
    result = suite.run_apart("--gpu-leak=fail")
    result.assert_outcomes(passed=1, errors=1, warnings=1)
    result.stdout.fnmatch_lines(["*leaked 4.0 MiB*"])
