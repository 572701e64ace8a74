"""Markdown: what is told, and that no foreign text is taken for markup."""

import io
import re

import pytest

from pytest_gpuclean.reports.data import Report
from pytest_gpuclean.reports.markdown import MarkdownWriter, code
from pytest_gpuclean.units import MiB
from unit.reports.world import HOSTILE, entry, explanation, hostile_report, leak, left, run, use, whole_report


def text_of(report):
    out = io.StringIO()
    MarkdownWriter().write(report, out)
    return out.getvalue()


def outside_of_code(text):
    """What is left once code spans, which end with the fence that they began with, are taken out."""
    return re.sub(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)", "CODE", text)


def test_it_says_what_leaked_and_who_holds_it():
    text = text_of(whole_report())
    assert text.startswith("## gpuclean: 1 leak, 4.0 MiB\n")
    assert (
        "| `test_a.py::test_leaks` | `leaked 4.0 MiB on cuda:0 (threshold 1.0 MiB)` | `test_a.CACHE[3]` |  |\n" in text
    )
    assert "| `test_a.py::test_leaves` | `TensorBoard (pid 12), port 6006: ended by SIGINT` |" in text
    assert "| `a killed run` | `TensorBoard (pid 12), port 6006: is still alive: it is stuck` |" in text
    assert "> **Note:** `shard 2 of 3 is missing`" in text
    assert "> **Note:** `a run is not whole: it was interrupted`" in text
    assert "| `test_a.py::test_it` | `cuda:0` | 64.0 MiB |" in text
    assert "| `garbage` | 2 | 1.0 MiB | 100 ms | 1 |" in text
    assert "| `nvml` | `it is not there` |" in text


def test_a_run_with_nothing_to_tell_is_short():
    assert text_of(Report(runs=(run(entry()),))) == "## gpuclean: no leaks\n\n1 test in 500 ms · cost 0.0 ms (0.0 %)\n"


def test_leaks_that_are_excused_are_told_last_with_their_reason():
    tests = [entry(leaks=(leak(allowed="a cache", leaked_bytes=64 * MiB),)), entry("test_b", leaks=(leak("test_b"),))]
    text = text_of(Report(runs=(run(*tests),)))
    assert text.startswith("## gpuclean: 1 leak, 4.0 MiB; 1 more known or allowed\n")
    assert text.index("test_b") < text.index("allowed: a cache")


@pytest.mark.parametrize("text", HOSTILE)
def test_foreign_text_is_one_span_of_code(text):
    assert outside_of_code(code(text)) == "CODE"
    assert "\n" not in code(text)
    assert code(text).isprintable()


@pytest.mark.parametrize("text", ["", " ", "\x00", "\n"])
def test_nothing_is_no_span_of_code(text):
    assert code(text) == ""


def test_no_foreign_text_is_markup():
    text = text_of(hostile_report())
    cells = [len(re.split(r"(?<!\\)\|", line)) for line in text.splitlines() if line.startswith("|")]
    assert set(cells) == {4, 5, 6, 7}  # tables of two to five columns, each with one more side than it has columns
    assert cells.count(7) == 2 + len(HOSTILE)
    bare = outside_of_code(text)
    for sign in ("@", "](", "::error", "\x1b", "\u202e", "<img", "<script", "javascript", "#1"):
        assert sign not in bare
    tags = set(re.findall("<[^>]*>", bare))
    assert tags == {"<details>", "<summary>", "</summary>", "</details>"}
    for line in bare.splitlines():
        if line.startswith("|"):
            assert line.count("|") in (3, 4, 5, 6)


def test_long_names_are_cut_in_the_middle():
    text = code("a" * 500 + "z" * 500)
    assert len(text) <= 170
    assert text.startswith("`aaa")
    assert text.endswith("zzz`")


def test_it_stays_below_what_a_comment_takes():
    name = "test_" + "x" * 5000
    tests = [
        entry(
            f"{name}{number}",
            "error",
            leaks=(leak(name, kind="fixture", scope="module", explanation=explanation(name)),),
            left=(left(command=name, name=name),),
            problems=(name,),
            memory=(use(0, 0, number + MiB),),
        )
        for number in range(300)
    ]
    gaps = {f"{name}{number}": name for number in range(300)}
    text = text_of(Report(runs=(run(*tests, not_measured=gaps),), notes=("n" * 500,)))
    assert len(text) < 65_536
    assert "and 250 more" in text
