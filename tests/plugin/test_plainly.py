"""The plugin's own modules are imported as Python does: pytest would compile them anew where it may write none."""

import pytest

LOADERS = """
    import sys

    def test_it():
        ours = {name: module for name, module in sys.modules.items() if name.startswith("pytest_gpuclean.")}
        by_pytest = {name for name, module in ours.items() if "rewrite" in type(module.__loader__).__module__}
        assert "pytest_gpuclean.plugin.options" in ours
        assert len(by_pytest) <= MOST, by_pytest
        assert ("pytest_gpuclean.plugin.hooks" in ours) == IS_ON
        assert not [finder for finder in sys.meta_path if "gpuclean" in type(finder).__module__]
"""


@pytest.fixture
def plain_suite(suite, monkeypatch):
    """A suite whose plugin comes as its tests say."""
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p no:cacheprovider")
    suite.pytester.makeconftest("")
    return suite


@pytest.mark.parametrize("named", [[], ["-p", "pytest_gpuclean.plugin"]], ids=["installed", "named"])
@pytest.mark.parametrize("arguments", [[], ["--gpu-clean=quick"]], ids=["nothing said", "on"])
def test_pytest_imports_next_to_none_of_its_modules(plain_suite, monkeypatch, named, arguments):
    if not named:  # an editable install is not even seen by pytest
        monkeypatch.delenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD")
    # The one that imports the others, or the two that were named; and what the first test brings up.
    most = 2 + (10 if arguments else 0)
    plain_suite.write(LOADERS, header=f"MOST, IS_ON = {most}, {bool(arguments)}")
    plain_suite.pytester.runpytest_subprocess("-W", "error", *named, *arguments).assert_outcomes(passed=1)


def test_a_run_inside_a_run_may_name_it_and_is_not_warned(plain_suite, monkeypatch):
    plain_suite.write(
        """
        pytest_plugins = "pytester"

        def test_outer(pytester, monkeypatch):
            monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
            pytester.makepyfile("def test_inner(): pass")
            pytester.runpytest_inprocess("-W", "error", "-p", "pytest_gpuclean.plugin").assert_outcomes(passed=1)
    """,
        header="",
    )
    monkeypatch.delenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD")
    plain_suite.pytester.runpytest_subprocess("-p", "no:flaky").assert_outcomes(passed=1)
