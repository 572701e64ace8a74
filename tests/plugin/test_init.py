"""`--gpu-init`: a device that is initialised by something else than a test is told with the line that does it."""

import os
from pathlib import Path

import pytest

REPORT, FAIL = "--gpu-init=report", "--gpu-init=fail"
ADVICE = "  do that in a fixture or a test: here it costs a context in every process, and what is forked cannot use it"


@pytest.fixture
def simulated(suite, simgpu, monkeypatch):
    """An inner suite with the simulated accelerator, which a plugin of its own has loaded and nobody has used yet."""
    paths = [str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    suite.pytester.makeconftest("")
    suite.pytester.makepyfile(
        with_simgpu="""
            import simgpu
            simgpu.load()
        """,
        using="""
            import torch

            def use():
                return torch.zeros(3, device="simgpu")
        """,
    )
    monkeypatch.setenv("PYTEST_PLUGINS", "")
    monkeypatch.setenv("PYTEST_ADDOPTS", f"{os.environ['PYTEST_ADDOPTS']} -p with_simgpu")
    suite.write("def test_it(): pass")
    return suite


def told(result):
    return [line for line in result.outlines if line.startswith("INIT ") or line == ADVICE]


def conftest(suite, text):
    (suite.pytester.path / "conftest.py").write_text(text)


@pytest.mark.parametrize("option", [REPORT, "--gpu-clean=quick", "--gpu-leak=fail"])
def test_a_conftest_that_initialises_is_told_with_its_line(simulated, option):
    conftest(simulated, "import torch\n\nPROBE = torch.zeros(3, device='simgpu')\n")
    result = simulated.run_apart(option)
    assert told(result) == [
        "INIT simgpu was initialised at the import of conftest.py, by conftest.py:3",
        ADVICE,
    ]
    assert result.ret == 0


def test_a_module_that_a_conftest_imports_is_the_one_that_is_told(simulated):
    simulated.pytester.makepyfile(helper="from using import use\n\nPROBE = use()\n")
    conftest(simulated, "import helper\n")
    assert told(simulated.run_apart(REPORT))[0] == (
        "INIT simgpu was initialised at the import of conftest.py, by using.py:4"
    )


def test_a_test_module_that_initialises_at_its_import_is_told(simulated):
    simulated.write(
        "import torch\n\n@pytest.mark.skipif(torch.zeros(1, device='simgpu'), reason='x')\ndef test_it(): pass",
        header="import pytest\n",
    )
    assert told(simulated.run_apart(REPORT))[0] == (
        "INIT simgpu was initialised at the collection of test_it.py, by test_it.py:5"
    )


def test_a_conftest_in_a_folder_is_told(simulated):
    folder = simulated.pytester.mkpydir("deep")
    (folder / "conftest.py").write_text("from using import use\nuse()\n")
    (folder / "test_deep.py").write_text("def test_deep(): pass\n")
    assert told(simulated.run_apart(REPORT))[0] == (
        "INIT simgpu was initialised at the import of deep/conftest.py, by using.py:4"
    )


def test_parametrizing_that_initialises_is_told(simulated):
    conftest(
        simulated,
        """
def pytest_generate_tests(metafunc):
    from using import use
    use()
""",
    )
    [line, _] = told(simulated.run_apart(REPORT))
    assert line.startswith("INIT simgpu was initialised at the collection of test_it.py, by using.py:4")


def test_a_hook_that_configures_the_run_is_told(simulated):
    conftest(
        simulated,
        """
def pytest_configure(config):
    from using import use
    use()
""",
    )
    assert (
        told(simulated.run_apart(REPORT))[0] == "INIT simgpu was initialised as the run was configured, by using.py:4"
    )


def test_what_tests_and_fixtures_initialise_is_theirs(simulated):
    simulated.write(
        """
        from using import use

        @pytest.fixture(scope="session", autouse=True)
        def device():
            return use()

        def test_it():
            use()
    """,
        header="import pytest",
    )
    result = simulated.run_apart(FAIL)
    result.assert_outcomes(passed=1)
    assert told(result) == []
    assert result.ret == 0


@pytest.mark.parametrize("arguments", [[], ["--gpu-init=off", "--gpu-leak=fail"], ["--gpu-clean=off", FAIL]], ids=str)
def test_off_tells_nothing(simulated, arguments):
    conftest(simulated, "from using import use\nuse()\n")
    result = simulated.run_apart(*arguments)
    assert told(result) == []
    assert result.ret == 0


def test_fail_fails_the_run_and_no_test(simulated):
    conftest(simulated, "from using import use\nuse()\n")
    result = simulated.run_apart(FAIL)
    result.assert_outcomes(passed=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert len(told(result)) == 2


def test_fail_keeps_a_worse_exit_status(simulated):
    conftest(simulated, "from using import use\nuse()\n")
    result = simulated.run_apart(FAIL, "--nonsense")
    assert result.ret == pytest.ExitCode.USAGE_ERROR


@pytest.mark.parametrize("workers", [["-p", "xdist", "-n0"], ["-p", "xdist", "-n2"]], ids=["n0", "n2"])
@pytest.mark.parametrize("where", ["conftest", "test"])
def test_workers_and_their_controller_tell_it_once(simulated, workers, where):
    pytest.importorskip("xdist")
    if where == "conftest":
        conftest(simulated, "import torch\nPROBE = torch.zeros(3, device='simgpu')\n")
    else:
        simulated.write("import torch\nPROBE = torch.zeros(3, device='simgpu')\ndef test_it(): pass", header="")
    result = simulated.run_apart(FAIL, *workers)
    result.assert_outcomes(passed=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    when, file = {
        "conftest": ("at the import of conftest.py", "conftest.py:2"),
        "test": ("at the collection of test_it.py", "test_it.py:2"),
    }[where]
    assert told(result) == [f"INIT simgpu was initialised {when}, by {file}", ADVICE]


def test_a_controller_that_initialises_while_its_workers_run_is_told(simulated):
    pytest.importorskip("xdist")
    conftest(
        simulated,
        """
def pytest_runtest_logreport(report):
    import os
    if "PYTEST_XDIST_WORKER" not in os.environ:
        from using import use
        use()
""",
    )
    result = simulated.run_apart(FAIL, "-p", "xdist", "-n1")
    assert told(result)[0] == "INIT simgpu was initialised in the controller of the workers, by using.py:4"
    assert result.ret == pytest.ExitCode.TESTS_FAILED


def test_only_the_first_is_told(simulated):
    conftest(simulated, "from using import use\nuse()\n")
    simulated.write("from using import use\nuse()\ndef test_it(): pass", header="")
    assert len(told(simulated.run_apart(REPORT))) == 2


def test_it_is_told_where_tests_are_only_collected(simulated):
    conftest(simulated, "from using import use\nuse()\n")
    assert len(told(simulated.run_apart(REPORT, "--collect-only"))) == 2


def test_whoever_had_it_initialised_before_pytest_began_is_not_told(simulated):
    simulated.pytester.makepyfile(
        with_simgpu="""
        import simgpu
        simgpu.load()
        import torch
        torch.zeros(3, device="simgpu")
    """
    )
    assert told(simulated.run_apart(REPORT)) == []


def test_an_error_at_import_is_as_it_was_and_no_finder_stays(simulated):
    conftest(simulated, "raise OSError('its own reason')\n")
    result = simulated.run_apart(REPORT)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "its own reason" in result.stdout.str() + result.stderr.str()


def test_no_finder_stays_while_tests_run(suite):
    suite.write(
        """
        import sys

        def test_it():
            assert not [finder for finder in sys.meta_path if "gpuclean" in type(finder).__module__]
    """,
        header="",
    )
    suite.run(REPORT).assert_outcomes(passed=1)


@pytest.mark.parametrize("option", ["--gpu-clean=fast", "--gpu-init=maybe"])
def test_a_value_that_does_not_parse_is_refused_as_ever(suite, option):
    suite.write("def test_it(): print('RAN')")
    result = suite.run(option, "-s")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    text = result.stdout.str() + result.stderr.str()
    assert "is not one of" in text
    assert "Traceback" not in text


def test_an_ini_file_may_ask_for_it(simulated):
    simulated.ini("gpu_init = fail")
    conftest(simulated, "from using import use\nuse()\n")
    result = simulated.run_apart()
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert len(told(result)) == 2
