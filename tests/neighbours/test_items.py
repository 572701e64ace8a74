"""Tests that are not functions: doctests, unittest's cases, and items that other plugins make of files."""

import pytest

from .street import in_full

YAML_PLUGIN = """
    import json
    import fakegpu

    KEPT = []

    def pytest_collect_file(parent, file_path):
        if file_path.suffix == ".cases":
            return CasesFile.from_parent(parent, path=file_path)

    class CasesFile(pytest.File):
        def collect(self):
            for line in self.path.read_text().splitlines():
                name, does = line.split(": ")
                yield {kind}.from_parent(self, name=name, does=does)

    class Group(pytest.Collector):
        def __init__(self, *, does, **more):
            super().__init__(**more)
            self.does = does

        def collect(self):
            yield Case.from_parent(self, name="only", does=self.does)

    class CaseFailed(Exception):
        pass

    class Case(pytest.Item):
        def __init__(self, *, does, **more):
            super().__init__(**more)
            self.does = does

        def runtest(self):
            if self.does == "skip":  # what it raises is kept by pytester, in this process
                pytest.skip("later")
            buffer = fakegpu.allocate(4 * fakegpu.MiB)
            if self.does == "leak":
                KEPT.append(buffer)
            elif self.does == "fail":
                raise CaseFailed(self.name)
            elif self.does == "cycle":
                node = [buffer]
                node.append(node)
            elif self.does == "keep":
                self.kept_on_itself = True

        def repr_failure(self, excinfo):
            assert isinstance(excinfo.value, CaseFailed)
            return f"case {{self.name}} failed"

        def reportinfo(self):
            return self.path, None, f"case {{self.name}}"
"""
CASES = "first: pass\nleaks: leak\nfails: fail\nskips: skip\ngarbage: cycle\nlast: keep\n"


@pytest.mark.parametrize("kind", ["Case", "Group"])
@pytest.mark.parametrize(
    "every", ["class", *(pytest.param(every, marks=in_full) for every in ("test", "param", "module", "session"))]
)
def test_items_of_a_file_that_is_no_module(street, kind, every):
    street.conftest(YAML_PLUGIN.format(kind=kind))
    (street.path / "one.cases").write_text(CASES, encoding="utf-8")
    (street.path / "two.cases").write_text(CASES, encoding="utf-8")
    gate = "--gpu-clean=quick", f"--gpu-clean-every={every}", "--gpu-report=report.html", "--gpu-leak-confirm=1"
    beside, alone = street.both(gate=gate)
    assert beside.order == alone.order
    assert sum(beside.leaky.values()) == 2
    assert not [line for line in beside.text.splitlines() if line.startswith("KEPT")]
    name = "fails" if kind == "Case" else "only"
    assert [r.text for r in beside.reports if r.outcome == "failed" and r.when == "call"] == [f"case {name} failed"] * 2


def test_items_beside_functions_of_the_same_folder(street):
    street.conftest(YAML_PLUGIN.format(kind="Case"))
    (street.path / "a.cases").write_text(CASES, encoding="utf-8")
    street.write("""
        @pytest.fixture(scope="session", autouse=True)
        def model():
            yield allocate(8 * MiB)

        def test_leaks():
            KEPT.append(allocate(4 * MiB))

        def test_frees():
            pass
    """)
    beside, alone = street.both()
    assert beside.order == alone.order
    assert sorted(beside.leaky) == ["a.cases::leaks", "test_it.py::test_leaks"]


def test_an_item_that_has_nothing_but_a_name(street):
    street.conftest("""
        import fakegpu
        KEPT = []

        class Bare(pytest.Item):
            def runtest(self):
                KEPT.append(fakegpu.allocate(4 * fakegpu.MiB))

        def pytest_collection_modifyitems(session, items):
            items.append(Bare.from_parent(session, name="bare_leaks"))
    """)
    street.write("def test_it(): pass")
    beside, _ = street.both(gate=("--gpu-clean=quick", "--gpu-report=report.html", "--gpu-leak-confirm=1"))
    assert list(beside.leaky.values()) == [1]


@in_full
def test_doctests(street):
    street.suite.pytester.makepyfile(
        manual='''
        """
        >>> import fakegpu
        >>> KEPT = []
        """

        import fakegpu

        KEPT = []

        def frees():
            """
            >>> node = [fakegpu.allocate(4 * fakegpu.MiB)]
            >>> node.append(node)
            """

        def leaks():
            """
            >>> KEPT.append(fakegpu.allocate(4 * fakegpu.MiB))
            """

        def fails():
            """
            >>> buffer = fakegpu.allocate(16 * fakegpu.MiB)
            >>> buffer.size_bytes
            0
            """

        def raises():
            """
            >>> buffer = fakegpu.allocate(16 * fakegpu.MiB)
            >>> buffer.nothing
            """
        '''
    )
    (street.path / "manual.txt").write_text(
        ">>> import fakegpu\n>>> kept = fakegpu.allocate(4 * fakegpu.MiB)\n>>> 1 + 1\n2\n", encoding="utf-8"
    )
    street.more += ("--doctest-modules", "--doctest-glob=*.txt", "manual.py", "manual.txt")
    beside, alone = street.both(apart=True)
    assert beside.order == alone.order
    assert beside.leaky == {"manual.py::manual.leaks": 1}


def test_doctests_that_go_on_after_a_failure(street):
    (street.path / "test_manual.txt").write_text(
        ">>> import fakegpu\n>>> fakegpu.allocate(1).size_bytes\n2\n>>> 1 + 1\n3\n", encoding="utf-8"
    )
    beside, alone = street.both("--doctest-continue-on-failure")
    [mine], [theirs] = ([r.text for r in seen.reports if r.outcome == "failed"] for seen in (beside, alone))
    assert mine == theirs
    assert mine.count("Expected:") == 2


@in_full
def test_unittest(street):
    street.write("""
        import unittest

        class TestIt(unittest.TestCase):
            @classmethod
            def setUpClass(cls):
                cls.model = allocate(8 * MiB)

            @classmethod
            def tearDownClass(cls):
                del cls.model

            def setUp(self):
                self.buffer = allocate(4 * MiB)
                self.addCleanup(setattr, self, "cleaned", True)

            def test_passes(self):
                pass

            def test_leaks(self):
                KEPT.append(self.buffer)

            def test_fails(self):
                local = allocate(16 * MiB)
                self.assertEqual(1, 2)

            @unittest.skip("later")
            def test_skipped(self):
                pass

            @unittest.expectedFailure
            def test_expected(self):
                local = allocate(16 * MiB)
                raise ValueError

            @unittest.expectedFailure
            def test_unexpected_success(self):
                pass

        class TestTearDown(unittest.TestCase):
            def tearDown(self):
                raise OSError("own reason")

            def test_it_leaks(self):
                KEPT.append(allocate(4 * MiB))

        def load_tests(loader, tests, pattern):
            raise RuntimeError("pytest does not ask")
    """)
    beside, alone = street.beside(apart=True), street.alone(apart=True)
    assert beside.facts() == alone.facts()
    assert beside.leaky == {"test_it.py::TestIt::test_leaks": 1, "test_it.py::TestTearDown::test_it_leaks": 1}
