"""The house: imports point one way, and importing the plugin costs nothing."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import pytest_gpuclean
from pytest_gpuclean.public import HOMES

ROOT = Path(pytest_gpuclean.__file__).parent
NAME = "pytest_gpuclean"

MIDDLE = ("memory", "cleanup", "leaks", "processes", "reports")
GROUND = ("units", "errors", "interpreter", "plainly")
ENGINE = ("cards", "cleaning", "closing", "dispatched", "ends", "engine", "explaining", "judging", "ladder", "window")
TOP = ("scripts", "cli", "plugin", "notebooks")
ALLOWED = {
    "": ("public", "plugin"),
    "public": (),
    "units": GROUND,
    "errors": GROUND,
    "interpreter": GROUND,
    "plainly": GROUND,
    "model": (*GROUND, "model"),
    **{part: (*GROUND, "model", part) for part in MIDDLE},
    **dict.fromkeys(ENGINE, (*GROUND, "model", *MIDDLE, *ENGINE)),
    **{part: (*GROUND, "model", *MIDDLE, *ENGINE, part) for part in TOP},
    "scripts": (*GROUND, "model", *MIDDLE, *ENGINE, "scripts"),
    "cli": (*GROUND, "model", *MIDDLE, *ENGINE, "scripts", "cli"),
}
"""What each part may import of the package. The package itself resolves its names on first use; imported by pytest, it
goes on with the plugin."""

FILES = sorted(ROOT.rglob("*.py"))


def part_of(path):
    first = path.relative_to(ROOT).parts[0]
    return "" if first == "__init__.py" else first.removesuffix(".py")


def imports_of(path):
    """Give each module that a file imports when it runs, and its line; not those for type checkers alone."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for_checkers = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if node in for_checkers:
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            if node.module == NAME:
                yield from ((f"{NAME}.{alias.name}", node.lineno) for alias in node.names)
            else:
                yield node.module, node.lineno


def ids(path):
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", FILES, ids=ids)
def test_imports_point_one_way(path):
    part = part_of(path)
    assert part in ALLOWED, f"{part} has no place in the house; say in ALLOWED what it may import"
    wrong = [
        f"{path.name}:{line}: {name}"
        for name, line in imports_of(path)
        if name.partition(".")[0] == NAME and name.split(".")[1] not in ALLOWED[part]
    ]
    assert wrong == []


@pytest.mark.parametrize("path", [path for path in FILES if part_of(path) != "plugin"], ids=ids)
def test_only_the_plugin_imports_pytest(path):
    runner = {"pytest", "_pytest", "pluggy", "xdist"}
    assert [(name, line) for name, line in imports_of(path) if name.partition(".")[0] in runner] == []


@pytest.mark.parametrize("path", FILES, ids=ids)
def test_no_file_imports_a_framework(path):
    frameworks = {"torch", "tensorflow", "jax", "jaxlib", "cupy", "numpy", "numba", "keras"}
    assert [(name, line) for name, line in imports_of(path) if name.partition(".")[0] in frameworks] == []


def loaded_by(code):
    done = subprocess.run([sys.executable, "-X", "importtime", "-c", code], capture_output=True, text=True, check=True)
    return {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}


@pytest.mark.parametrize("module", ["pytest_gpuclean", "pytest_gpuclean.plugin"])
def test_importing_it_loads_nothing_heavy(module):
    loaded = loaded_by(f"import {module}")
    assert module in loaded
    heavy = {"psutil", "pynvml", "torch", "tensorflow", "jax", "numpy", "cupy", "keras"}
    assert {name for name in loaded if name.partition(".")[0] in heavy} == set()


def loaded_at_the_end_of_a_run(folder, *arguments):
    (folder / "conftest.py").write_text("import sys\ndef pytest_unconfigure(): print('loaded:', *sys.modules)\n")
    (folder / "test_it.py").write_text("def test_it(): pass\n")
    (folder / "pytest.ini").write_text("[pytest]\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-s", *arguments],
        cwd=folder,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": str(ROOT.parent)},
        capture_output=True,
        text=True,
        check=True,
    )
    return {*re.search(r"^loaded: (.*)$", done.stdout, re.MULTILINE)[1].split()}


@pytest.mark.parametrize("arguments", [[], ["--gpu-clean=off"]], ids=["nothing said", "off"])
def test_a_run_that_does_not_ask_for_it_loads_nothing_heavy(tmp_path, arguments):
    added = loaded_at_the_end_of_a_run(tmp_path, "-p", "gpuclean", *arguments) - loaded_at_the_end_of_a_run(tmp_path)
    ours = {name.removeprefix(f"{NAME}.") for name in added if name.partition(".")[0] == NAME}
    if arguments:
        assert ours >= {"plugin.settings"}
        assert not ours & {*MIDDLE, *ENGINE, "plugin.hooks", "plugin.telling"}
    else:  # each further module costs every run of pytest 0.2 ms
        assert ours == {NAME, "plugin", "plugin.options"}
    heavy = {"psutil", "pynvml", "torch", "tensorflow", "jax", "numpy", "cupy", "keras", "ctypes", "multiprocessing"}
    assert {name for name in added if name.partition(".")[0] in heavy} == set()


def test_every_public_name_resolves():
    code = """
import pytest_gpuclean
assert pytest_gpuclean.__all__
for name in pytest_gpuclean.__all__:
    assert getattr(pytest_gpuclean, name) is not None
    assert name in dir(pytest_gpuclean)
"""
    # Apart: some of the functions for scripts mark the process that imports them.
    subprocess.run([sys.executable, "-c", code], check=True)
    assert "watch" in pytest_gpuclean.__all__


def test_the_functions_for_scripts_load_nothing_heavy():
    loaded = loaded_by("from pytest_gpuclean import *")
    assert f"{NAME}.scripts.steps" in loaded
    heavy = {"psutil", "pynvml", "torch", "tensorflow", "jax", "numpy", "cupy", "keras", "pytest", "_pytest"}
    assert {name for name in loaded if name.partition(".")[0] in heavy} == set()


def test_a_name_that_is_not_public_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'nothing_like_it'"):
        pytest_gpuclean.nothing_like_it  # noqa: B018


def test_the_public_names_of_type_checkers_are_those_that_resolve():
    tree = ast.parse((ROOT / "__init__.pyi").read_text(encoding="utf-8"))
    homes = {
        alias.asname: node.module.removeprefix(f"{NAME}.")
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert homes == HOMES
    (names,) = (node.value for node in tree.body if isinstance(node, ast.Assign))
    assert ast.literal_eval(names) == pytest_gpuclean.__all__
