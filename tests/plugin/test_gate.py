"""A test that keeps memory fails, and the one that gives it back does not."""

import pytest


def test_a_leak_is_an_error_at_the_teardown_of_the_test_that_leaked(suite):
    suite.write("""
        def test_leaks():
            KEPT.append(allocate(4 * MiB))

        def test_next():
            pass
    """)
    result = suite.run("--gpu-leak=fail")
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["*ERROR at teardown of test_leaks*"])
    result.stdout.fnmatch_lines(["gpuclean: leaked 4.0 MiB on fake:0 (threshold 1.0 MiB)"])
    assert result.ret == pytest.ExitCode.TESTS_FAILED


def test_tests_that_give_their_memory_back_pass(suite):
    suite.write("""
        def test_local():
            buffer = allocate(64 * MiB)

        @pytest.fixture
        def buffer():
            return allocate(64 * MiB)

        def test_fixture(buffer):
            pass

        def test_cycle():
            node = [allocate(64 * MiB)]
            node.append(node)

        class TestIt:
            def test_attribute(self):
                self.buffer = allocate(64 * MiB)
    """)
    suite.run("--gpu-leak=fail").assert_outcomes(passed=4)


@pytest.mark.parametrize("scope", ["class", "module", "session"])
@pytest.mark.parametrize("kept_mib", [4, 8, 20])
def test_a_leak_of_the_last_test_of_a_scope_is_not_its_fixtures(suite, scope, kept_mib):
    """The runner has the value of the fixture until the test is reported, and what it is made of is unknown."""
    suite.write(f"""
        @pytest.fixture(scope="{scope}")
        def shared():
            yield allocate(8 * MiB)

        def test_leaks(shared):
            KEPT.append(allocate({kept_mib} * MiB))
    """)
    result = suite.run("--gpu-leak=fail")
    result.assert_outcomes(passed=1, errors=1)
    told = [line for line in result.outlines if line.startswith("gpuclean: ") and "leaked" in line]
    assert told == [f"gpuclean: leaked {kept_mib}.0 MiB on fake:0 (threshold 1.0 MiB)"]


def test_a_fixture_and_the_last_test_of_its_scope_may_both_leak(suite):
    suite.write("""
        @pytest.fixture(scope="module")
        def shared():
            KEPT.append(allocate(8 * MiB))
            yield allocate(16 * MiB)

        def test_leaks(shared):
            KEPT.append(allocate(4 * MiB))
    """)
    result = suite.run("--gpu-leak=fail")
    told = {line for line in result.outlines if line.startswith("gpuclean: ") and "leaked" in line}
    assert told == {
        "gpuclean: leaked 4.0 MiB on fake:0 (threshold 1.0 MiB)",
        "gpuclean: fixture 'shared' (module scope) leaked 8.0 MiB on fake:0 (threshold 1.0 MiB)",
    }


def test_a_leak_of_a_failing_test_stands_beside_its_own_failure(suite):
    suite.write("""
        def test_leaks_and_fails():
            KEPT.append(allocate(4 * MiB))
            assert KEPT == "its own reason"
    """)
    result = suite.run("--gpu-leak=fail")
    result.assert_outcomes(failed=1, errors=1)
    result.stdout.fnmatch_lines(["E*its own reason*"])
    result.stdout.fnmatch_lines(["gpuclean: leaked 4.0 MiB*"])


def test_a_teardown_that_fails_keeps_its_own_failure_and_the_leak_is_told_beside_it(suite):
    suite.write("""
        @pytest.fixture
        def resource():
            yield
            raise OSError("its own reason")

        def test_leaks(resource):
            KEPT.append(allocate(4 * MiB))
    """)
    result = suite.run("--gpu-leak=fail")
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["E*OSError: its own reason"])
    result.stdout.fnmatch_lines(["gpuclean: leaked 4.0 MiB on fake:0*"])
    result.stdout.fnmatch_lines(["LEAK test_it.py::test_leaks: leaked 4.0 MiB*"])


def test_a_setup_that_fails_and_leaks_is_told_too(suite):
    suite.write("""
        @pytest.fixture
        def resource():
            KEPT.append(allocate(4 * MiB))
            raise OSError("its own reason")

        def test_it(resource):
            pass
    """)
    result = suite.run("--gpu-leak=fail")
    result.stdout.fnmatch_lines(["E*OSError: its own reason"])
    result.stdout.fnmatch_lines(["LEAK test_it.py::test_it: leaked 4.0 MiB*"])


def test_a_skipped_test_that_leaks_is_an_error(suite):
    suite.write("""
        def test_leaks():
            KEPT.append(allocate(4 * MiB))
            pytest.skip("later")
    """)
    suite.run("--gpu-leak=fail").assert_outcomes(skipped=1, errors=1)


@pytest.mark.parametrize(
    "body",
    [
        "@pytest.mark.xfail\ndef test_it():\n    KEPT.append(allocate(4 * MiB))\n    assert 0",
        "@pytest.mark.xfail(strict=True)\ndef test_it():\n    KEPT.append(allocate(4 * MiB))\n    assert 0",
        "def test_it():\n    KEPT.append(allocate(4 * MiB))\n    pytest.xfail('known')",
    ],
    ids=["marked", "strict", "imperative"],
)
def test_a_leak_in_an_xfail_test_is_an_error(suite, body):
    suite.write(body)
    suite.run("--gpu-leak=fail").assert_outcomes(xfailed=1, errors=1)


def test_a_leak_in_a_test_that_passes_against_expectation_is_an_error(suite):
    suite.write("""
        @pytest.mark.xfail(strict=False)
        def test_it():
            KEPT.append(allocate(4 * MiB))
    """)
    suite.run("--gpu-leak=fail").assert_outcomes(xpassed=1, errors=1)


def test_the_threshold_itself_passes(suite):
    suite.write("""
        def test_at():
            KEPT.append(allocate(8 * MiB))

        def test_above():
            KEPT.append(allocate(8 * MiB + 1))
    """)
    suite.run("--gpu-leak=fail", "--gpu-leak-threshold=8MiB").assert_outcomes(passed=2, errors=1)


def test_small_leaks_that_add_up_are_an_error_of_the_module(suite):
    suite.write("""
        @pytest.mark.parametrize("number", range(20))
        def test_small(number):
            KEPT.append(allocate(900 * KiB))
    """)
    result = suite.run("--gpu-leak=fail")
    result.assert_outcomes(passed=20, errors=1)
    result.stdout.fnmatch_lines(["gpuclean: module test_it.py leaked 17.6 MiB over 20 tests on fake:0*"])


FIXTURE_THAT_KEEPS = """
    @pytest.fixture(scope="{scope}")
    def model():
        KEPT.append(allocate(64 * MiB))
        yield KEPT[-1]
        {teardown}

    class TestIt:
        def test_first(self, model):
            pass

        def test_last(self, model):
            pass
"""


@pytest.mark.parametrize("scope", ["class", "module", "package", "session"])
def test_a_wider_fixture_that_gives_its_memory_back_is_clean(suite, scope):
    suite.write(FIXTURE_THAT_KEEPS.format(scope=scope, teardown="KEPT.clear()"))
    suite.run("--gpu-leak=fail").assert_outcomes(passed=2)


@pytest.mark.parametrize("scope", ["class", "module", "package", "session"])
def test_a_wider_fixture_that_keeps_its_memory_is_an_error_of_the_last_test_of_its_scope(suite, scope):
    suite.write(FIXTURE_THAT_KEEPS.format(scope=scope, teardown="pass"))
    result = suite.run("--gpu-leak=fail")
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["*ERROR at teardown of TestIt.test_last*"])
    result.stdout.fnmatch_lines([f"gpuclean: fixture 'model' ({scope} scope) leaked 64.0 MiB on fake:0*"])


def test_a_fixture_that_is_created_for_each_parameter_is_judged_each_time(suite):
    suite.write("""
        @pytest.fixture(scope="module", params=["small", "large"])
        def model(request):
            buffer = allocate(64 * MiB)
            if request.param == "small":
                KEPT.append(buffer)
            yield buffer

        def test_first(model):
            pass

        def test_last(model):
            pass
    """)
    result = suite.run("--gpu-leak=fail")
    result.assert_outcomes(passed=4, errors=1)
    assert result.stdout.str().count("ERROR at teardown of ") == 1


def test_a_fixture_that_another_asks_for_in_its_setup_is_judged_by_itself(suite):
    suite.write("""
        @pytest.fixture(scope="session")
        def weights():
            yield allocate(32 * MiB)

        @pytest.fixture(scope="module")
        def model(request):
            own = allocate(16 * MiB)
            KEPT.append(own)
            request.getfixturevalue("weights")
            yield own

        def test_it(model):
            pass
    """)
    result = suite.run("--gpu-leak=fail")
    result.stdout.fnmatch_lines(["gpuclean: fixture 'model' (module scope) leaked 16.0 MiB on fake:0*"])
    result.stdout.no_fnmatch_line("*'weights'*")
    result.assert_outcomes(passed=1, errors=1)


def test_a_setup_of_a_wider_fixture_that_fails_and_gives_back_is_clean(suite):
    suite.write("""
        @pytest.fixture(scope="module")
        def model():
            buffer = allocate(64 * MiB)
            raise OSError("no weights")

        def test_first(model):
            pass

        def test_other():
            pass
    """)
    result = suite.run_apart("--gpu-leak=fail")
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.no_fnmatch_line("*leaked*")


def test_memory_that_a_module_allocates_at_import_is_nobodys(suite):
    suite.write("""
        KEPT.append(allocate(64 * MiB))

        def test_first():
            pass
    """)
    suite.run("--gpu-leak=fail").assert_outcomes(passed=1)


def test_an_interrupt_in_a_teardown_passes_through(suite):
    suite.write("""
        @pytest.fixture
        def resource():
            yield
            raise KeyboardInterrupt

        def test_leaks(resource):
            KEPT.append(allocate(4 * MiB))

        def test_never():
            pass
    """)
    result = suite.run_apart("--gpu-leak=fail")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.stdout.fnmatch_lines(["*KeyboardInterrupt*"])
    result.stdout.no_fnmatch_line("*INTERNALERROR*")


@pytest.mark.parametrize("where", ["test", "teardown"])
def test_an_exit_passes_through(suite, where):
    suite.write(f"""
        @pytest.fixture
        def resource():
            yield
            if {where == "teardown"}:
                pytest.exit("enough", returncode=7)

        def test_leaks(resource):
            KEPT.append(allocate(4 * MiB))
            if {where == "test"}:
                pytest.exit("enough", returncode=7)

        def test_never():
            pass
    """)
    result = suite.run("--gpu-leak=fail")
    assert result.ret == 7
    result.stdout.fnmatch_lines(["*Exit: enough*"])


def test_minus_x_stops_at_a_leak(suite):
    suite.write("""
        def test_leaks():
            KEPT.append(allocate(4 * MiB))

        def test_never():
            pass
    """)
    suite.run("--gpu-leak=fail", "-x").assert_outcomes(passed=1, errors=1)


def test_a_leak_of_the_first_test_does_not_hide_the_second(suite):
    suite.write("""
        def test_first():
            KEPT.append(allocate(4 * MiB))

        def test_second():
            KEPT.append(allocate(6 * MiB))

        def test_gives_back():
            KEPT.clear()
    """)
    result = suite.run("--gpu-leak=fail")
    result.assert_outcomes(passed=3, errors=2)
    result.stdout.fnmatch_lines(["gpuclean: leaked 4.0 MiB*", "gpuclean: leaked 6.0 MiB*"])


def test_each_device_is_told(suite):
    suite.write("""
        def test_leaks():
            KEPT.append(allocate(4 * MiB, device=0))
            KEPT.append(allocate(8 * MiB, device=1))
    """)
    result = suite.run("--gpu-leak=fail")
    result.stdout.fnmatch_lines_random(["gpuclean: leaked 4.0 MiB on fake:0*", "gpuclean: leaked 8.0 MiB on fake:1*"])


def test_a_peak_above_the_limit_fails_though_all_of_it_is_back(suite):
    suite.write("""
        def test_below():
            allocate(16 * MiB)

        def test_above():
            allocate(64 * MiB)

        def test_below_again():
            allocate(16 * MiB)
    """)
    result = suite.run("--gpu-peak-limit=32MiB")
    result.assert_outcomes(passed=3, errors=1)
    result.stdout.fnmatch_lines(["*ERROR at teardown of test_above*"])
    result.stdout.fnmatch_lines(["gpuclean: peak 64.0 MiB on fake:0 (limit 32.0 MiB)"])


# -- items that are no functions -------------------------------------------------------------------------------------


def test_a_unittest_case_is_judged_by_its_tests_and_its_class(suite):
    suite.write("""
        import unittest

        class TestIt(unittest.TestCase):
            @classmethod
            def setUpClass(cls):
                cls.model = allocate(64 * MiB)

            @classmethod
            def tearDownClass(cls):
                del cls.model

            def setUp(self):
                self.buffer = allocate(8 * MiB)

            def test_clean(self):
                pass

            def test_leaks(self):
                KEPT.append(allocate(4 * MiB))
    """)
    result = suite.run_apart("--gpu-leak=fail")
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["*ERROR at teardown of TestIt.test_leaks*", "gpuclean: leaked 4.0 MiB*"])


def test_a_unittest_class_that_keeps_its_memory_is_told(suite):
    suite.write("""
        import unittest

        class TestIt(unittest.TestCase):
            @classmethod
            def setUpClass(cls):
                KEPT.append(allocate(64 * MiB))

            def test_first(self):
                pass

            def test_last(self):
                pass
    """)
    result = suite.run("--gpu-leak=fail")
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["gpuclean: fixture *(class scope) leaked 64.0 MiB on fake:0*"])


SETS_ON_ITS_CLASS = """
    import unittest
    import numpy

    class TestIt({base}):
        {teardown}

        def test_first(self):
            type(self).model = numpy.ones(8 * MiB)

        def test_last(self):
            pass
"""
PLAIN_TEARDOWN = "@classmethod\n        def teardown_class(cls): {does}"
UNITTEST_TEARDOWN = "@classmethod\n        def tearDownClass(cls): {does}"
CLASS_CLEANUP = "@classmethod\n        def setUpClass(cls): cls.addClassCleanup(lambda: {does})"


@pytest.mark.parametrize(
    ("base", "teardown"),
    [("", PLAIN_TEARDOWN), ("unittest.TestCase", UNITTEST_TEARDOWN), ("unittest.TestCase", CLASS_CLEANUP)],
    ids=["teardown_class", "tearDownClass", "addClassCleanup"],
)
def test_what_a_test_sets_on_a_class_that_tears_down_is_the_class_s(suite, base, teardown):
    pytest.importorskip("numpy")
    suite.write(SETS_ON_ITS_CLASS.format(base=base, teardown=teardown.format(does="setattr(cls, 'model', None)")))
    suite.run_apart("--gpu-leak=fail", "--gpu-leak-watch=host").assert_outcomes(passed=2)
    suite.write(SETS_ON_ITS_CLASS.format(base=base, teardown=teardown.format(does="None")))
    result = suite.run_apart("--gpu-leak=fail", "--gpu-leak-watch=host")
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["*ERROR at teardown of TestIt.test_last*", "gpuclean: fixture *leaked 64.0 MiB*"])


@pytest.mark.parametrize("base", ["", "unittest.TestCase"], ids=["plain", "unittest"])
def test_what_a_test_sets_on_a_class_that_tears_nothing_down_is_a_leak_of_the_test(suite, base):
    pytest.importorskip("numpy")
    suite.write(SETS_ON_ITS_CLASS.format(base=base, teardown="setting = 1"))
    result = suite.run_apart("--gpu-leak=fail", "--gpu-leak-watch=host")
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["*ERROR at teardown of TestIt.test_first*", "gpuclean: leaked 64.0 MiB*"])


def test_setup_module_and_setup_class_own_what_they_bring_up(suite):
    suite.write("""
        def setup_module(module):
            module.model = allocate(64 * MiB)

        def teardown_module(module):
            del module.model

        class TestIt:
            @classmethod
            def setup_class(cls):
                cls.model = allocate(32 * MiB)

            @classmethod
            def teardown_class(cls):
                del cls.model

            def setup_method(self):
                self.buffer = allocate(8 * MiB)

            def test_first(self):
                pass

            def test_last(self):
                pass
    """)
    suite.run_apart("--gpu-leak=fail").assert_outcomes(passed=2)


def test_a_doctest_is_judged(suite):
    suite.write('''
        def function():
            """
            >>> KEPT.append(allocate(4 * MiB))
            """
    ''')
    result = suite.run("--gpu-leak=fail", "--doctest-modules", "test_it.py")
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["gpuclean: leaked 4.0 MiB*"])


def test_a_doctest_in_a_text_file_is_judged(suite):
    suite.pytester.maketxtfile(test_it=">>> import fakegpu\n>>> fakegpu.kept = fakegpu.allocate(4 * fakegpu.MiB)\n")
    result = suite.run("--gpu-leak=fail", "--doctest-glob=*.txt")
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["LEAK test_it.txt::test_it.txt: leaked 4.0 MiB*"])


def test_items_of_other_plugins_are_judged(suite):
    suite.conftest("""
        class Item(pytest.Item):
            def runtest(self):
                fakegpu.kept = fakegpu.allocate(4 * fakegpu.MiB)

            def reportinfo(self):
                return self.path, 0, self.name

        class File(pytest.File):
            def collect(self):
                yield Item.from_parent(self, name="own")

        def pytest_collect_file(file_path, parent):
            if file_path.suffix == ".own":
                return File.from_parent(parent, path=file_path)
    """)
    suite.pytester.makefile(".own", test_it="")
    result = suite.run("--gpu-leak=fail")
    result.assert_outcomes(passed=1, errors=1)


@pytest.mark.skipif(pytest.version_tuple < (9,), reason="subtests came with pytest 9")
def test_a_leak_in_a_subtest_is_the_tests(suite):
    suite.write("""
        def test_it(subtests):
            for number in range(3):
                with subtests.test(number=number):
                    KEPT.append(allocate(4 * MiB))
    """)
    result = suite.run("--gpu-leak=fail")
    result.stdout.fnmatch_lines(["gpuclean: leaked 12.0 MiB on fake:0*"])
    assert result.parseoutcomes()["errors"] == 1


OLDER_GARBAGE = """
    import gc
    import numpy

    class Document:
        '''No array, and too little of it to be looked at.'''
        def __init__(self):
            self.text = "x" * (200 * 1024)
            self.document = self

    @pytest.fixture(scope="module", autouse=True)
    def no_collection_by_itself():
        gc.disable()
        yield
        gc.enable()

    @pytest.mark.parametrize("number", range(60))
    def test_reads_a_document(number):
        assert Document().text

    class TestFixture:
        @pytest.fixture(scope="class")
        def features(self):
            KEPT.append(numpy.ones(2**20))
            return KEPT[-1]

        def test_uses_the_features(self, features):
            assert features.sum() > 0

    @pytest.mark.parametrize("number", range(60))
    def test_reads_another_one(number):
        assert Document().text

    def test_keeps_an_array():
        KEPT.append(numpy.ones(2**20))
"""


def test_garbage_that_is_older_than_a_leak_and_more_does_not_hide_it_in_host_memory(suite):
    pytest.importorskip("numpy")
    suite.write(OLDER_GARBAGE)
    result = suite.run_apart("--gpu-leak=fail", "--gpu-leak-watch=host")
    result.assert_outcomes(passed=122, errors=2)
    result.stdout.fnmatch_lines(
        [
            "LEAK test_it.py::TestFixture::test_uses_the_features: fixture 'features' (class scope) leaked 8.0 MiB *",
            "LEAK test_it.py::test_keeps_an_array: leaked 8.0 MiB on cpu*",
        ]
    )


def test_garbage_that_is_older_than_a_leak_takes_nothing_off_it_in_host_memory(suite):
    pytest.importorskip("numpy")
    suite.write("""
        import gc
        import numpy

        class Document:
            def __init__(self):
                self.text = "x" * (200 * 1024)
                self.document = self

        LIBRARY = []

        def test_reads_documents():
            LIBRARY.extend(Document() for _ in range(25))
            gc.collect()  # from now on they are old

        def test_closes_them():
            LIBRARY.clear()

        class TestFixture:
            @pytest.fixture(scope="class")
            def features(self):
                KEPT.append(numpy.ones(2**20))
                return KEPT[-1]

            def test_uses_the_features(self, features):
                assert features.sum() > 0

        def test_reads_more():
            test_reads_documents()

        def test_closes_more():
            LIBRARY.clear()

        def test_checks_a_block(gpu_clean):
            with pytest.raises(pytest.fail.Exception, match="leaked 8.0 MiB on cpu"), gpu_clean.no_leak():
                KEPT.append(numpy.ones(2**20))

        def test_reads_even_more():
            test_reads_documents()

        def test_closes_all():
            LIBRARY.clear()

        def test_keeps_an_array():
            KEPT.append(numpy.ones(2**20))
    """)
    result = suite.run_apart("--gpu-leak=fail", "--gpu-leak-watch=host")
    result.assert_outcomes(passed=9, errors=2)
    result.stdout.fnmatch_lines(
        [
            "LEAK test_it.py::TestFixture::test_uses_the_features: fixture 'features' (class scope) leaked 8.0 MiB *",
            "LEAK test_it.py::test_keeps_an_array: leaked 8.0 MiB on cpu*",
        ]
    )
