"""The checks of the built package find what is wrong; `tox run -e package` runs them on a real one."""

import importlib.metadata
import re
from pathlib import Path

import pytest

from built.contents import NAME, ROOT, SHIPPED, TOP, faults_of_sdist, faults_of_wheel, package_files

PACKAGE = package_files(ROOT)
INFO = "pytest_gpuclean-1.dist-info"
WHEEL = {*PACKAGE, *(f"{INFO}/{name}" for name in ("METADATA", "RECORD", "entry_points.txt", "licenses/LICENSE"))}
SDIST = {*PACKAGE, *SHIPPED, *TOP}


def test_what_is_right_has_no_faults():
    assert [*faults_of_wheel(WHEEL, PACKAGE)] == []
    assert [*faults_of_sdist(SDIST, PACKAGE)] == []


@pytest.mark.parametrize("name", ["py.typed", "reports/assets/page.html", "plugin/hooks.py"])
def test_a_file_that_is_missing_is_named(name):
    lost = f"{NAME}/{name}"
    assert f"the wheel has no {lost}" in [*faults_of_wheel(WHEEL - {lost}, PACKAGE)]
    assert f"the source distribution has no {lost}" in [*faults_of_sdist(SDIST - {lost}, PACKAGE)]


def test_tests_in_the_wheel_and_bytecode_in_the_sources_are_named():
    assert [*faults_of_wheel({*WHEEL, "tests/conftest.py"}, PACKAGE)] == [
        "the wheel has tests/conftest.py, which is no part of the package"
    ]
    (fault,) = faults_of_sdist({*SDIST, "tests/__pycache__/conftest.pyc"}, PACKAGE)
    assert "conftest.pyc" in fault


def floors():
    """Give the lowest versions that pyproject.toml allows, by name."""
    tomllib = pytest.importorskip("tomllib")
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    return {re.split(r"[<>=!~ ;]", line)[0]: line.partition(">=")[2] for line in wanted}


def section(name):
    text = (ROOT / "tox.ini").read_text(encoding="utf-8")
    return re.split(r"^\[", text.partition(f"\n[{name}]\n")[2], maxsplit=1, flags=re.MULTILINE)[0]


def test_each_dependency_has_a_lowest_version_and_it_is_tried():
    pinned = dict(re.findall(r"^    ([\w-]+)==(\S+)$", section("testenv:lowest"), re.MULTILINE))
    assert all(floors().values())
    assert {name: pinned.get(name, "").removesuffix(".0") for name in floors()} == {
        name: floor.removesuffix(".0") for name, floor in floors().items()
    }


def test_the_package_is_tried_with_the_first_command_of_the_readme():
    readme = Path(ROOT / "README.md").read_text(encoding="utf-8")
    first = re.search(
        r"^python -m pip install '\.\[examples\]' && (python -m pytest .*) examples$", readme, re.MULTILINE
    )
    assert first is not None
    assert first[1] in section("testenv:{wheel,sdist}")


def test_each_python_that_is_promised_is_in_the_matrix():
    tox = (ROOT / "tox.ini").read_text(encoding="utf-8")
    matrix = re.search(r"matrix = py\{([\d,]+)\}", tox)
    promised = re.findall(r"Python :: (3)\.(\d+)", (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert {f"{major}{minor}" for major, minor in promised} <= {*matrix[1].split(",")}


def test_the_plugin_is_found_by_its_entry_point():
    names = [point.value for point in importlib.metadata.entry_points(group="pytest11") if point.name == "gpuclean"]
    assert {*names} == {"pytest_gpuclean.plugin"}
