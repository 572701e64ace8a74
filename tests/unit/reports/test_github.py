"""Annotations: where the leak is, and that no foreign text becomes a command."""

import pytest

from pytest_gpuclean.reports.github import Annotation, annotation_lines, escape_property
from pytest_gpuclean.units import MiB
from unit.reports.world import HOSTILE, explanation, leak


def annotation(text="test_a.py::test_it", kind="error", file="/repository/tests/test_a.py", line=12, **more):
    return Annotation(kind, file, line, text, leak(text, **more))


def test_a_leak_is_told_at_the_line_of_its_test():
    (line,) = annotation_lines([annotation(explanation=explanation())], "/repository")
    assert line == (
        "::error file=tests/test_a.py,line=12,title=gpuclean%3A leaked 4.0 MiB on cuda%3A0 (threshold 1.0 MiB)"
        "::test_a.py::test_it%0Aheld by test_a.CACHE[3]"
    )


@pytest.mark.parametrize("workspace", ["", "/elsewhere", "/reposi"])
def test_a_file_outside_of_the_repository_keeps_its_path(workspace):
    (line,) = annotation_lines([annotation(line=0)], workspace)
    assert line.startswith("::error file=/repository/tests/test_a.py,line=1,")


@pytest.mark.parametrize("text", HOSTILE)
def test_foreign_text_is_no_command(text):
    found = annotation(text, file=f"/repository/{text}", kind="warning", note=text, explanation=explanation(text))
    (line,) = annotation_lines([found], "/repository")
    assert line.isprintable()
    assert len(line.splitlines()) == 1
    properties, _, _ = line.removeprefix("::warning ").partition("::")
    assert [part.partition("=")[0] for part in properties.split(",")] == ["file", "line", "title"]


def test_what_escapes_is_escaped_itself():
    assert escape_property("%0A,:\r\n") == "%250A%2C%3A%0D%0A"


def test_the_largest_are_shown_and_the_others_counted():
    found = [annotation(leaked_bytes=number * MiB) for number in range(1, 26)]
    lines = list(annotation_lines([*found, annotation(kind="warning")], ""))
    assert len(lines) == 12
    assert "leaked 25.0 MiB" in lines[0]
    assert lines[10] == "and 15 more errors, 120.0 MiB: GitHub shows 10"
    assert lines[11].startswith("::warning ")
