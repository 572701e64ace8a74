"""The documentation: its settings and commands are known, and its sessions go as they say."""

import ast
import importlib.util
import re
import shlex
import sys

import pytest

import pytest_gpuclean
from pytest_gpuclean.cli import parser
from pytest_gpuclean.plugin.options import OPTIONS
from pytest_gpuclean.plugin.settings import _parse, read_settings
from unit.docs.pages import PAGES, ROOT, blocks, commands, name_of, prose
from unit.docs.sessions import run, says, steps

SHELLS = ("", "console", "sh", "yaml", "groovy")
OPTION_OF = {option.flag: option for option in OPTIONS if option.is_on_command_line}
SESSIONS = [page for page in PAGES if blocks("console", page=page)]
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="processes are proved by /proc")


def shell_commands(program):
    """Give each command of a program, by where it stands."""
    found = [(str(block), text) for block in blocks(*SHELLS) for text in commands(block)]
    return [pytest.param(text, id=where) for where, text in found if text.split()[0] == program]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_options_that_are_named_are_there(page):
    named = re.findall(r"(?<![\w-])--gpu-[a-z-]+", page.read_text(encoding="utf-8"))
    assert set(named) <= OPTION_OF.keys()


@pytest.mark.parametrize("block", blocks("python"), ids=str)
def test_python_is_python_and_imports_what_is_there(block):
    for node in ast.walk(ast.parse(block.text)):
        if isinstance(node, ast.ImportFrom) and node.module == "pytest_gpuclean":
            assert {alias.name for alias in node.names} <= set(pytest_gpuclean.__all__)


@pytest.mark.parametrize("block", blocks("toml"), ids=str)
def test_settings_are_understood(block, pytester):
    pytester.makepyprojecttoml(block.text)
    config = pytester.parseconfig("--strict-config")
    assert any(config.getini(option.dest) for option in OPTIONS if option.kind != "switch")
    read_settings(config)


@pytest.mark.parametrize("command", shell_commands("pytest"))
def test_command_lines_of_pytest_are_understood(command):
    """As far as they are ours: other plugins may not be installed."""
    for word in shlex.split(re.sub(r"\$\{\{[^}]*\}\}", "1", command)):
        flag, _, value = word.partition("=")
        if flag.startswith("--gpu-"):
            option = OPTION_OF[flag]
            assert bool(value) == (option.kind != "switch"), word
            if value:
                _parse(option, [value] if option.kind == "list" else value, str(command))


@pytest.mark.parametrize("command", shell_commands("gpuclean"))
def test_command_lines_of_gpuclean_are_understood(command):
    words = shlex.split(command)[1:]
    words = words[: words.index("--")] if "--" in words else words
    parser().parse_args(words)  # SystemExit where it is not


@pytest.mark.parametrize("block", blocks("yaml"), ids=str)
def test_files_for_a_ci_are_whole(block):
    yaml = pytest.importorskip("yaml")
    found = yaml.safe_load(block.text)
    jobs = found.get("jobs", {}) if isinstance(found, dict) else {"": {"steps": found}}
    for name, job in jobs.items():
        assert job["steps"], name
        for step in job["steps"]:
            assert ("run" in step) != ("uses" in step), step
        assert {job.get("needs", name)} <= set(jobs)
        axes = set(job.get("strategy", {}).get("matrix", {}))
        assert set(re.findall(r"matrix\.(\w+)", str(job))) <= axes
    for name, job in found.items() if not jobs else ():
        if name != "stages":  # of GitLab
            assert job["stage"] in found["stages"]
            assert set(job.get("needs", ())) <= set(found)
            assert all(isinstance(line, str) for line in job["script"])


def test_every_page_of_how_to_is_in_its_list_and_in_the_menu_of_the_site():
    listed, menu = (
        set(re.findall(r"how-to/[\w-]+\.md", path.read_text(encoding="utf-8")))
        for path in (ROOT / "docs" / "how-to.md", ROOT / "mkdocs.yml")
    )
    there = {f"how-to/{page.name}" for page in (ROOT / "docs" / "how-to").glob("*.md")}
    assert listed == menu == there


def test_a_session_is_compared_word_by_word():
    shown = "a\n...\nb ... d in 2.79s\n==== 1 passed in 3 ms ====\n"
    assert says(shown, "a\nx\ny\nb c d in 0.1s\n== 1 passed in 12.5 ms ==\n")
    assert says(shown, "a\nb  d in 0.1s\n=== 1 passed in 1 s ===\n")
    assert not says(shown, "a\nb c d in 0.1s\n=== 2 passed in 1 s ===\n")
    assert not says(shown, "a\nb c d in 0.1s\n=== 1 passed in 1 s ===\nmore\n")
    assert not says("held 4.0 MiB\n", "held 5.0 MiB\n")


@LINUX
@pytest.mark.parametrize("page", SESSIONS, ids=name_of)
def test_sessions_go_as_they_are_shown(page, tmp_path, hears_sigint):
    """Blocks with a title are files, which are there from where they stand on."""
    for block in blocks("python", "console", page=page):
        for module in ("torch", "numpy"):
            if f"import {module}" in block.text and importlib.util.find_spec(module) is None:
                pytest.skip(f"it needs {module}")
        if block.title:
            (tmp_path / block.title).write_text(block.text, encoding="utf-8")
        for command, expected in steps(block.text) if block.language == "console" else ():
            said = run(command, tmp_path)
            assert says(expected, said), f"{block}\n$ {command}\n{said}\n-- is shown as --\n{expected}"


def test_prose_has_no_fence_in_it():
    """A fence that is not closed hides the rest of its page from these tests."""
    for page in PAGES:
        assert "```" not in prose(page), page
