"""Markers on functions, classes and modules; what does not parse is refused before any test runs."""

import pytest

LEAK = "KEPT.append(allocate(4 * MiB))"


def test_a_marker_works_on_its_test_without_any_option(suite):
    suite.write("""
        @pytest.mark.gpu_leak(threshold="1MiB")
        def test_marked():
            KEPT.append(allocate(4 * MiB))

        def test_other():
            KEPT.append(allocate(4 * MiB))
    """)
    result = suite.run()
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["*ERROR at teardown of test_marked*"])


def test_a_clean_marker_cleans_after_its_test_alone(suite):
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
        def test_before():
            pass

        @pytest.mark.gpu_clean("comprehensive")
        def test_marked():
            pass

        def test_after():
            pass
    """)
    result = suite.run("-s")
    result.assert_outcomes(passed=3)
    assert result.stdout.str().count("CLEANED comprehensive") == 1


@pytest.mark.parametrize("where", ["class", "module"])
def test_a_marker_works_on_a_class_and_a_module(suite, where):
    on_class = '@pytest.mark.gpu_leak(threshold="8MiB")' if where == "class" else ""
    on_module = 'pytestmark = pytest.mark.gpu_leak(threshold="8MiB")' if where == "module" else ""
    suite.write(f"""
        {on_module}

        {on_class}
        class TestIt:
            def test_below(self):
                {LEAK}

            def test_above(self):
                KEPT.clear()
                KEPT.append(allocate(20 * MiB))
    """)
    result = suite.run("--gpu-leak-threshold=1MiB")
    result.stdout.fnmatch_lines(["*ERROR at teardown of TestIt.test_above*"])
    result.stdout.no_fnmatch_line("*ERROR at teardown of TestIt.test_below*")


def test_the_closest_marker_wins(suite):
    suite.write("""
        pytestmark = pytest.mark.gpu_leak(threshold="1MiB")

        @pytest.mark.gpu_leak(threshold="2MiB")
        class TestIt:
            @pytest.mark.gpu_leak(threshold="64MiB")
            def test_it(self):
                KEPT.append(allocate(4 * MiB))

            def test_last(self):
                KEPT.clear()
    """)
    suite.run().assert_outcomes(passed=2)


def test_what_the_closest_marker_does_not_say_comes_from_the_next(suite):
    suite.write("""
        pytestmark = pytest.mark.gpu_leak(allow="a known cache")

        @pytest.mark.gpu_leak(threshold="2MiB")
        def test_it():
            KEPT.append(allocate(4 * MiB))
    """)
    result = suite.run()
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["ALLOWED test_it.py::test_it: leaked 4.0 MiB on fake:0 (threshold 2.0 MiB)"])


def test_a_marker_on_one_parameter_is_its_own(suite):
    suite.write("""
        @pytest.mark.parametrize("size", [
            pytest.param(4, marks=pytest.mark.gpu_leak(allow="known")), 4,
        ])
        def test_it(size):
            KEPT.append(allocate(size * MiB))
    """)
    suite.run("--gpu-leak=fail").assert_outcomes(passed=2, errors=1)


def test_an_allowed_leak_is_told_with_its_reason_and_fails_nothing(suite):
    suite.write("""
        @pytest.mark.gpu_leak(allow="first-use cache of a library")
        def test_it():
            KEPT.append(allocate(4 * MiB))
    """)
    result = suite.run("--gpu-leak=fail")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["ALLOWED test_it.py::test_it: leaked 4.0 MiB*", "*first-use cache of a library"])


def test_an_allowance_holds_to_its_last_day(suite):
    suite.write("""
        import datetime

        @pytest.mark.gpu_leak(allow="known", until=datetime.date.today())
        def test_today():
            KEPT.append(allocate(4 * MiB))

        @pytest.mark.gpu_leak(allow="known", until="2999-12-31")
        def test_later():
            KEPT.append(allocate(4 * MiB))
    """)
    suite.run("--gpu-leak=fail").assert_outcomes(passed=2)


def test_an_allowance_that_has_expired_fails_and_says_so(suite):
    suite.write("""
        @pytest.mark.gpu_leak(allow="a known cache", until="2024-01-31")
        def test_it():
            KEPT.append(allocate(4 * MiB))
    """)
    result = suite.run("--gpu-leak=fail")
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*its allowance ('a known cache') ran out on 2024-01-31"])


def test_an_allowance_on_the_module_covers_its_fixtures_and_its_drift(suite):
    suite.write("""
        pytestmark = pytest.mark.gpu_leak(allow="known")

        @pytest.fixture(scope="module")
        def model():
            KEPT.append(allocate(64 * MiB))

        @pytest.mark.parametrize("number", range(4))
        def test_it(model, number):
            KEPT.append(allocate(900 * KiB))
    """)
    result = suite.run("--gpu-leak=fail")
    result.assert_outcomes(passed=4)
    result.stdout.fnmatch_lines_random(["ALLOWED *: fixture 'model'*", "ALLOWED *: module test_it.py leaked*"])


def test_an_allowance_of_one_test_does_not_cover_the_fixture_that_ends_with_it(suite):
    suite.write("""
        @pytest.fixture(scope="module")
        def model():
            KEPT.append(allocate(64 * MiB))

        @pytest.mark.gpu_leak(allow="known")
        def test_it(model):
            pass
    """)
    suite.run("--gpu-leak=fail").assert_outcomes(passed=1, errors=1)


def test_an_allowance_does_not_excuse_a_peak(suite):
    suite.write("""
        @pytest.mark.gpu_leak(allow="known")
        @pytest.mark.gpu_limit(peak="1MiB")
        def test_it():
            allocate(4 * MiB)
    """)
    suite.run().assert_outcomes(passed=1, errors=1)


# -- refused ----------------------------------------------------------------------------------------------------------

BAD_MARKERS = [
    ("gpu_clean()", "level"),
    ("gpu_clean('fast')", "'fast' is not one of quick, comprehensive"),
    ("gpu_clean('off')", "'off' is not one of"),
    ("gpu_clean(level='quick', every='function')", "'function' is not one of"),
    ("gpu_clean('quick', 'test', 'more')", "3 arguments"),
    ("gpu_clean('quick', level='quick')", "level"),
    ("gpu_clean(strength='quick')", "strength"),
    ("gpu_leak(threshold='10MBananas')", "'10MBananas' is no size"),
    ("gpu_leak(threshold=-1)", "-1 is no size"),
    ("gpu_leak(threshold=True)", "True is no size"),
    ("gpu_leak(allow='')", "allow=''"),
    ("gpu_leak(allow='  ')", "is no reason"),
    ("gpu_leak(allow=True)", "allow=True is no reason"),
    ("gpu_leak(until='2027-01-31')", "allow='why'"),
    ("gpu_leak(allow='known', until='2027-02-30')", "'2027-02-30' is no date"),
    ("gpu_leak(allow='known', until='31.1.2027')", "'31.1.2027' is no date"),
    ("gpu_leak(allow='known', until=2027)", "2027 is no date"),
    ("gpu_leak(limit='1MiB')", "limit"),
    ("gpu_limit()", "peak"),
    ("gpu_limit(peak='much')", "'much' is no size"),
    ("gpu_limit('1MiB', '2MiB')", "2 arguments"),
]


@pytest.mark.parametrize(("marker", "says"), BAD_MARKERS)
def test_a_marker_that_does_not_parse_is_refused_with_its_test_before_any_runs(suite, marker, says):
    suite.write(f"""
        def test_before():
            print("RAN")

        @pytest.mark.{marker}
        def test_marked():
            print("RAN")
    """)
    result = suite.run("-s")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    text = result.stdout.str() + result.stderr.str()
    name = marker.partition("(")[0]
    assert f"@pytest.mark.{name} on test_it.py::test_marked" in text
    assert says in text
    assert "RAN" not in text
    assert "INTERNALERROR" not in text


@pytest.mark.parametrize("where", ["class", "module"])
def test_a_bad_marker_on_a_class_or_module_is_refused_too(suite, where):
    suite.write(f"""
        {"pytestmark = pytest.mark.gpu_clean('fast')" if where == "module" else ""}

        {"@pytest.mark.gpu_clean('fast')" if where == "class" else ""}
        class TestIt:
            def test_it(self):
                print("RAN")
    """)
    result = suite.run("-s")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "'fast' is not one of" in result.stdout.str() + result.stderr.str()
    assert "RAN" not in result.stdout.str()


def test_a_label_gpu_of_ones_own_is_left_alone(suite):
    suite.ini("markers = gpu: needs a GPU")
    suite.write("""
        @pytest.mark.gpu
        def test_it():
            KEPT.append(allocate(4 * MiB))
    """)
    suite.run("--strict-markers").assert_outcomes(passed=1)


def test_markers_are_known_under_strict_markers_also_where_everything_is_off(suite):
    suite.write("""
        @pytest.mark.gpu_clean("quick")
        @pytest.mark.gpu_leak(threshold="1MiB")
        @pytest.mark.gpu_limit(peak="1GiB")
        def test_it():
            pass
    """)
    suite.run("--strict-markers", "--gpu-clean=off").assert_outcomes(passed=1)


def test_a_deselected_tests_marker_activates_nothing(suite):
    suite.write("""
        @pytest.mark.gpu_leak(threshold="1MiB")
        def test_marked():
            pass

        def test_other(pytestconfig):
            assert pytestconfig.pluginmanager.get_plugin("gpuclean-run") is None
    """)
    suite.run("-k", "test_other").assert_outcomes(passed=1, deselected=1)
