"""Options: the marker before the command line before the ini file before the default, and bad values by name."""

import pytest

from pytest_gpuclean.plugin import settings

LEAK_4_MIB = """
    def test_it():
        KEPT.append(allocate(4 * MiB))
"""


def settings_of(suite, *arguments):
    return settings.settings_of(suite.pytester.parseconfigure(*arguments))


FIELDS = [
    # option, its field, an ini value and what it means, a command line value and what it means, the default
    ("gpu_clean", "level", "quick", "quick", "comprehensive", "comprehensive", None),
    ("gpu_clean_every", "every", "module", "module", "class", "class", "test"),
    ("gpu_leak", "leak_mode", "warn", "warn", "report", "report", None),
    ("gpu_leak_threshold", "threshold_bytes", "64MiB", 64 * 2**20, "4096", 4096, 2**20),
    ("gpu_leak_watch", "watch", "host", "host", "all", "all", "auto"),
    ("gpu_leak_confirm", "confirm", "2", 2, "3", 3, 0),
    ("gpu_peak_limit", "peak_limit_bytes", "1GiB", 2**30, "2GiB", 2**31, None),
    ("gpu_settle", "settle_seconds", "3", 3.0, "4.5", 4.5, 10.0),
    ("gpu_assign", "assign", "round-robin", "round-robin", "off", "off", "off"),
    ("gpu_init", "init", "report", "report", "fail", "fail", None),
]
IDS = [row[0] for row in FIELDS]


def flag(option):
    return "--" + option.replace("_", "-")


@pytest.mark.parametrize(("option", "field", "ini", "ini_means", "line", "line_means", "default"), FIELDS, ids=IDS)
def test_the_command_line_wins_over_the_ini_file_and_that_over_the_default(
    suite, option, field, ini, ini_means, line, line_means, default
):
    assert getattr(settings_of(suite), field) == default
    suite.ini(f"{option} = {ini}")
    assert getattr(settings_of(suite), field) == ini_means
    assert getattr(settings_of(suite, f"{flag(option)}={line}"), field) == line_means


@pytest.mark.parametrize(("option", "field", "ini", "ini_means", "line", "line_means", "default"), FIELDS, ids=IDS)
def test_options_are_read_from_pyproject(suite, option, field, ini, ini_means, line, line_means, default):
    suite.pytester.makepyprojecttoml(f'[tool.pytest.ini_options]\n{option} = "{ini}"\n')
    assert getattr(settings_of(suite), field) == ini_means


@pytest.mark.skipif(pytest.version_tuple < (9,), reason="native TOML came with pytest 9")
@pytest.mark.parametrize(("option", "field", "ini", "ini_means", "line", "line_means", "default"), FIELDS, ids=IDS)
def test_options_are_read_from_native_toml(suite, option, field, ini, ini_means, line, line_means, default):
    suite.pytester.makepyprojecttoml(f'[tool.pytest]\n{option} = "{ini}"\n')
    assert getattr(settings_of(suite), field) == ini_means


def test_an_ini_value_that_is_empty_is_the_default(suite):
    suite.ini("gpu_leak_threshold =", "gpu_clean =")
    settings = settings_of(suite)
    assert (settings.threshold_bytes, settings.level) == (2**20, None)


# -- the marker before the command line -------------------------------------------------------------------------------


def test_a_markers_threshold_wins_over_the_command_line(suite):
    suite.write("""
        @pytest.mark.gpu_leak(threshold="8MiB")
        def test_marked():
            KEPT.append(allocate(4 * MiB))

        def test_other():
            KEPT.append(allocate(4 * MiB))
    """)
    suite.ini("gpu_leak_threshold = 16MiB")
    result = suite.run("--gpu-leak=fail", "--gpu-leak-threshold=1MiB")
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["*ERROR at teardown of test_other*"])


def test_a_markers_level_and_boundary_win_over_the_command_line(suite):
    suite.conftest("""
        class Telling:
            name = "telling"

            def clean(self, occasion):
                print("CLEANED", occasion.level)
                return "done"

        def pytest_gpuclean_cleaners(config):
            return [Telling()]
    """)
    suite.write("""
        @pytest.mark.gpu_clean("comprehensive", every="test")
        def test_marked():
            pass

        def test_other():
            pass
    """)
    suite.ini("gpu_clean_every = class")
    result = suite.run("--gpu-clean=quick", "--gpu-clean-every=module", "-s")
    lines = [line.lstrip(".") for line in result.outlines if "CLEANED" in line]
    assert [line.partition("CLEANED")[2].strip() for line in lines] == ["comprehensive", "quick"]


def test_a_markers_peak_limit_wins_over_the_command_line(suite):
    suite.write("""
        @pytest.mark.gpu_limit(peak="64MiB")
        def test_marked():
            allocate(32 * MiB)

        def test_other():
            allocate(32 * MiB)
    """)
    result = suite.run("--gpu-peak-limit=16MiB")
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["*ERROR at teardown of test_other*"])


# -- the layers, seen from a run --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ini", "arguments", "errors"),
    [
        ("", [], 0),
        ("", ["--gpu-leak=fail"], 1),
        ("gpu_leak = fail", [], 1),
        ("gpu_leak = fail", ["--gpu-leak=off"], 0),
        ("gpu_leak = off", ["--gpu-leak=fail"], 1),
        ("gpu_leak = fail\ngpu_leak_threshold = 8MiB", [], 0),
        ("gpu_leak = fail\ngpu_leak_threshold = 8MiB", ["--gpu-leak-threshold=1MiB"], 1),
        ("gpu_clean = quick", [], 1),
        ("gpu_clean = quick", ["--gpu-clean=off"], 0),
        ("gpu_clean = off\ngpu_leak = fail", [], 1),
        ("gpu_clean = quick\ngpu_leak = off", [], 0),
        ("gpu_leak = fail", ["--gpu-clean=off"], 0),
    ],
)
def test_what_a_run_does_follows_from_the_layers(suite, ini, arguments, errors):
    suite.write(LEAK_4_MIB)
    suite.ini(*ini.splitlines())
    suite.run(*arguments).assert_outcomes(passed=1, errors=errors)


def test_off_on_the_command_line_silences_markers_and_fixtures(suite):
    suite.write("""
        @pytest.mark.gpu_clean("comprehensive")
        @pytest.mark.gpu_leak(threshold=0)
        @pytest.mark.gpu_limit(peak=1)
        def test_marked(gpu_clean):
            KEPT.append(allocate(4 * MiB))
            assert str(gpu_clean.snapshot()) == "nothing in use"
    """)
    result = suite.run("--gpu-clean=off", "--gpu-leak=fail", "--gpu-peak-limit=1")
    result.assert_outcomes(passed=1)
    result.stdout.no_fnmatch_line("*gpuclean:*")


def test_off_in_the_ini_file_leaves_markers_and_fixtures_their_say(suite):
    suite.ini("gpu_clean = off")
    suite.write("""
        @pytest.mark.gpu_leak(threshold="1MiB")
        def test_marked():
            KEPT.append(allocate(4 * MiB))
    """)
    suite.run().assert_outcomes(passed=1, errors=1)


@pytest.mark.parametrize(
    ("mode", "watch", "device", "does"),
    [
        (None, "auto", "cuda:0", "fail"),
        (None, "auto", "cpu", "warn"),
        (None, "host", "cpu", "fail"),
        (None, "all", "cpu", "fail"),
        ("fail", "auto", "cpu", "fail"),
        ("warn", "all", "cuda:0", "warn"),
        ("report", "auto", "cpu", "report"),
    ],
)
def test_what_a_leak_does_by_its_device(suite, mode, watch, device, does):
    arguments = [f"--gpu-leak-watch={watch}", *([f"--gpu-leak={mode}"] if mode else [])]
    assert settings_of(suite, *arguments).mode_of(device) == does


def test_the_help_names_every_option_with_its_default(suite):
    result = suite.run("--help")
    text = " ".join(result.stdout.str().split())
    for option, *_ in FIELDS:
        assert flag(option) in text
        assert f"{option} (string)" in text or f"{option} (" in text
    assert text.count("(default: ") >= 2 * 6


def test_the_markers_are_listed(suite):
    result = suite.run("--markers")
    result.stdout.fnmatch_lines_random(
        ["@pytest.mark.gpu_clean(*", "@pytest.mark.gpu_leak(*", "@pytest.mark.gpu_limit(*"]
    )


def test_the_fixtures_are_listed_with_what_they_do(suite):
    suite.write("def test_it(): pass")
    result = suite.run("--fixtures")
    result.stdout.fnmatch_lines_random(["gpu_clean --*", "gpu_clean_module *scope*"])
    result.stdout.no_fnmatch_line("*no docstring available*gpu_clean*")


# -- bad values -------------------------------------------------------------------------------------------------------

BAD = [
    ("gpu_clean", "fast"),
    ("gpu_clean", "Quick"),
    ("gpu_clean_every", "function"),
    ("gpu_leak", "error"),
    ("gpu_leak_threshold", "10MBananas"),
    ("gpu_leak_threshold", "-1"),
    ("gpu_leak_threshold", "lots"),
    ("gpu_leak_watch", "cuda"),
    ("gpu_leak_confirm", "twice"),
    ("gpu_leak_confirm", "1.5"),
    ("gpu_peak_limit", "64 XB"),
    ("gpu_settle", "soon"),
    ("gpu_settle", "inf"),
    ("gpu_assign", "random"),
    ("gpu_init", "maybe"),
]


def assert_refused(result, *parts):
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    text = result.stderr.str() + result.stdout.str()
    for part in parts:
        assert part in text
    assert "INTERNALERROR" not in text
    assert "Traceback" not in text
    assert "RAN" not in text


@pytest.fixture
def running(suite):
    suite.write("def test_it():\n    print('RAN')\n")
    return suite


@pytest.mark.parametrize(("option", "value"), BAD)
def test_a_bad_value_on_the_command_line_is_refused_by_name_before_any_test(running, option, value):
    assert_refused(running.run(f"{flag(option)}={value}", "-s", settle=True), f"{flag(option)}: {value!r} is ")


@pytest.mark.parametrize(("option", "value"), BAD)
def test_a_bad_value_in_the_ini_file_is_refused_by_name_before_any_test(running, option, value):
    running.ini(f"{option} = {value}")
    result = running.run("-s", settle=True)
    assert_refused(result, option, "tox.ini", f"{value!r} is ")


@pytest.mark.skipif(pytest.version_tuple < (9,), reason="native TOML came with pytest 9")
@pytest.mark.parametrize("value", ["10", "1.5", "true", '["64MiB"]'])
def test_a_native_toml_value_of_another_type_is_refused_by_name(running, value):
    running.pytester.makepyprojecttoml(f"[tool.pytest]\ngpu_leak_threshold = {value}\n")
    assert_refused(running.run("-s"), "gpu_leak_threshold", "pyproject.toml")


@pytest.mark.filterwarnings("ignore:A plugin raised an exception during:UserWarning")  # pytest 7.4's own
def test_a_level_is_required(running):
    result = running.run("--gpu-clean")
    assert result.ret == pytest.ExitCode.USAGE_ERROR


def test_a_bad_value_is_refused_also_where_the_plugin_is_off(running):
    assert_refused(running.run("--gpu-leak-threshold=lots"), "--gpu-leak-threshold: 'lots' is no size")
