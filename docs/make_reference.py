"""Write the tables of docs/reference.md from the plugin's own: `python docs/make_reference.py [--check]`."""

from __future__ import annotations

import argparse
import difflib
import inspect
import re
import sys
from pathlib import Path

import pytest_gpuclean
from pytest_gpuclean import plugin
from pytest_gpuclean.plugin import hookspecs
from pytest_gpuclean.plugin.handle import Handle
from pytest_gpuclean.plugin.options import FIXTURES, MARKERS, OPTIONS
from pytest_gpuclean.processes.families import FAMILIES

PAGE = Path(__file__).with_name("reference.md")


def options_table() -> list[str]:
    """One row an option."""
    lines = ["| option, ini key | default | meaning |", "| --- | --- | --- |"]
    for option in OPTIONS:
        text = re.sub(r" \(default: [^()]*\)", "", option.help)
        default = f"`{option.default}`" if option.default else "none"
        if option.kind == "switch":
            name = f"`{option.flag}`"
        elif option.is_on_command_line:
            name = f"`{option.flag}={option.metavar}`<br>`{option.dest}`"
        else:
            name = f"ini key `{option.dest}`"
        lines.append(f"| {name} | {default} | {_cell(text)} |")
    return lines


def markers_table() -> list[str]:
    """One row a marker."""
    lines = ["| marker | meaning |", "| --- | --- |"]
    for text in MARKERS.values():
        signature, _, meaning = text.partition(": ")
        lines.append(f"| `{signature}` | {_cell(meaning)} |")
    return lines


def fixtures_table() -> list[str]:
    """One row a fixture."""
    lines = ["| fixture | meaning |", "| --- | --- |"]
    for name in sorted(FIXTURES):
        function = inspect.unwrap(getattr(plugin, name))
        text = inspect.getdoc(getattr(function, "__wrapped__", None) or _function(function)) or ""
        lines.append(f"| `{name}` | {_cell(text)} |")
    return lines


def handle_table() -> list[str]:
    """One row a member of the handle that a fixture hands out."""
    lines = ["| member | meaning |", "| --- | --- |"]
    for name in ("snapshot", "clean", "peak", "on_cleanup", "no_leak", "disown"):
        member = inspect.getattr_static(Handle, name)
        function = member.fget if isinstance(member, property) else inspect.unwrap(member)
        call = name if isinstance(member, property) else f"{name}{_parameters(function)}"
        lines.append(f"| `{call}` | {_cell((inspect.getdoc(member) or '').partition(chr(10))[0])} |")
    return lines


def hooks_table() -> list[str]:
    """One row a hook."""
    lines = ["| hook | meaning |", "| --- | --- |"]
    for name, function in vars(hookspecs).items():
        if name.startswith("pytest_gpuclean"):
            lines.append(f"| `{name}{_parameters(function)}` | {_cell(inspect.getdoc(function) or '')} |")
    return lines


def scripts_table() -> list[str]:
    """One row a function for scripts."""
    lines = ["| function | meaning |", "| --- | --- |"]
    for name in pytest_gpuclean.__all__:
        if name.islower():
            function = getattr(pytest_gpuclean, name)
            meaning = (inspect.getdoc(function) or "").partition("\n\n")[0]
            lines.append(f"| `{name}{_parameters(function)}` | {_cell(meaning)} |")
    return lines


def families_table() -> list[str]:
    """One row for all kinds of processes that are stopped alike."""
    names: dict[str, list[str]] = {}
    for family in FAMILIES:
        if family.left_alone:
            until = " until the run ends" if family.until_run_ends else ""
            done = f"left alone{until} ({family.left_alone})"
        else:
            parent = "by its parent where that is stopped too, else " if family.goes_with_parent else ""
            children = "" if family.tree_at_once else "; it stops its own children, and what is left of them follows"
            done = f"{parent}{family.first_signal.name}, and up to {family.grace_seconds:g} s to end{children}"
        names.setdefault(done, []).append(family.name)
    rows = (f"| {_cell(', '.join(dict.fromkeys(alike)))} | {_cell(done)} |" for done, alike in names.items())
    return ["| kind | what is done |", "| --- | --- |", *rows]


TABLES = {
    "options": options_table,
    "markers": markers_table,
    "fixtures": fixtures_table,
    "handle": handle_table,
    "hooks": hooks_table,
    "scripts": scripts_table,
    "families": families_table,
}


def write(text: str) -> str:
    """Put the tables between their marks."""
    for name, table in TABLES.items():
        begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->\n"
        head, found, rest = text.partition(begin)
        _, closed, tail = rest.partition(end)
        if not (found and closed):
            raise SystemExit(f"{PAGE.name} has no {begin.strip()} ... {end.strip()}")
        text = f"{head}{begin}\n{chr(10).join(table())}\n\n{end}{tail}"
    return text


def main() -> int:
    """Write the page, or say how it differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail where the page is out of date")
    options = parser.parse_args()
    current = PAGE.read_text(encoding="utf-8")
    wanted = write(current)
    if not options.check:
        PAGE.write_text(wanted, encoding="utf-8")
        return 0
    difference = list(difflib.unified_diff(current.splitlines(), wanted.splitlines(), PAGE.name, "wanted", lineterm=""))
    print("\n".join(difference) or f"{PAGE.name} is up to date")
    return 1 if difference else 0


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _parameters(function: object) -> str:
    signature = inspect.signature(function)  # type: ignore[arg-type]
    kept = [p.replace(annotation=p.empty) for p in signature.parameters.values() if p.name != "self"]
    return str(signature.replace(parameters=kept, return_annotation=signature.empty))


def _function(definition: object) -> object:
    # pytest 8.4 wraps fixtures in an object of its own.
    getter = getattr(definition, "_get_wrapped_function", None)
    return getter() if getter else definition


if __name__ == "__main__":
    sys.exit(main())
