"""Where it was made: recorded in the runs of a suspect that `--gpu-leak-confirm` asks for, and in no other."""

import importlib.util

import pytest

pytest.importorskip("numpy")

ARRAYS = """
    import tracemalloc
    import numpy

    RUNS = []

    def test_it():
        RUNS.append(tracemalloc.is_tracing())
        KEPT.append(numpy.zeros(4 * MiB, dtype=numpy.uint8))

    def test_that_it_is_over():
        print("TRACED", RUNS, tracemalloc.is_tracing())
"""
ON_HOST = ("--gpu-leak=fail", "--gpu-leak-watch=host", "-s")


def test_the_run_of_a_suspect_is_recorded_and_the_first_run_is_not(suite):
    suite.write(ARRAYS)
    result = suite.run(*ON_HOST, "--gpu-leak-confirm=2", "--gpu-leak-trace=on")
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["*TRACED [[]False, True, True[]] False*"])


@pytest.mark.parametrize("options", [("--gpu-leak-confirm=1",), ("--gpu-leak-trace=on",)])
def test_without_either_option_nothing_is_recorded(suite, options):
    suite.write(ARRAYS)
    result = suite.run(*ON_HOST, *options)
    result.assert_outcomes(passed=2, errors=1)
    assert "True" not in result.stdout.str().partition("TRACED")[2].partition("\n")[0]


def test_the_ini_key_says_it_too(suite):
    suite.ini("gpu_leak_trace = on", "gpu_leak_confirm = 1")
    suite.write(ARRAYS)
    suite.run(*ON_HOST).stdout.fnmatch_lines(["*TRACED [[]False, True[]] False*"])


def test_another_value_is_refused(suite):
    suite.write(ARRAYS)
    result = suite.run("--gpu-leak-trace=yes")
    result.stderr.fnmatch_lines(["*--gpu-leak-trace: 'yes' is not one of on, off*"])


def test_arrays_are_not_traced_for_a_leak_on_a_device(suite):
    suite.write("""
        import tracemalloc

        def test_it():
            print("TRACED", tracemalloc.is_tracing())
            KEPT.append(allocate(4 * MiB))
    """)
    result = suite.run("--gpu-leak=fail", "--gpu-leak-confirm=1", "--gpu-leak-trace=on", "-s")
    assert result.stdout.str().count("TRACED False") == 2


def test_a_test_that_fails_under_the_record_runs_again_without_it(suite):
    suite.write("""
        import tracemalloc
        import numpy

        RUNS = []

        def test_it():
            RUNS.append(tracemalloc.is_tracing())
            KEPT.append(numpy.zeros(4 * MiB, dtype=numpy.uint8))
            if RUNS[-1]:
                KEPT.clear()
                raise ValueError("not under a record")

        def test_that_it_is_over():
            print("TRACED", RUNS)
    """)
    result = suite.run(*ON_HOST, "--gpu-leak-confirm=1", "--gpu-leak-trace=on")
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["*TRACED [[]False, True, False[]]*"])


def test_a_test_that_fails_anyway_runs_no_more_often(suite):
    suite.write("""
        import numpy

        def test_it():
            print("RA" + "N")
            KEPT.append(numpy.zeros(4 * MiB, dtype=numpy.uint8))
            raise ValueError("always")
    """)
    result = suite.run(*ON_HOST, "--gpu-leak-confirm=1", "--gpu-leak-trace=on")
    assert result.stdout.str().count("RAN") == 2


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs torch")
def test_the_line_of_the_test_that_made_the_tensor_is_known_in_its_run(suite):
    suite.conftest("""
        from pytest_gpuclean.memory.storages import StorageReaders

        @pytest.fixture(autouse=True)
        def tell(request):
            yield
            import test_it

            hooks = request.config.pluginmanager.get_plugin("gpuclean-run")
            readers = StorageReaders()
            for value in test_it.KEPT:
                identity = readers.reader_of(type(value))(value).identity
                print("MADE", repr(hooks._sites.site_of(identity, value)))
    """)
    suite.write("""
        import torch

        def make():
            return torch.zeros(4 * MiB, dtype=torch.uint8)

        def test_it():
            KEPT.append(make())
    """)
    result = suite.run_apart(*ON_HOST, "--gpu-leak-confirm=1", "--gpu-leak-trace=on")  # torch can be loaded only once
    result.assert_outcomes(passed=1, errors=1)
    made = "test_it.py:11 in make, from test_it.py:14 in test_it"
    result.stdout.fnmatch_lines(["*MADE ''", "*MADE ''", f"*MADE '{made}'"])
