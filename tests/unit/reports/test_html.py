"""The HTML report: one page, no network, and no foreign text that is markup or a script."""

import base64
import hashlib
import io
import json
import re
from html.parser import HTMLParser

import pytest

from pytest_gpuclean.reports.data import Report
from pytest_gpuclean.reports.html import HtmlWriter, page_data, script_safe
from pytest_gpuclean.units import MiB
from unit.reports.world import HOSTILE, entry, explanation, hostile_report, leak, left, run, use, whole_report


def text_of(report):
    out = io.StringIO()
    HtmlWriter().write(report, out)
    return out.getvalue()


class Page(HTMLParser):
    """Takes a page apart."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.scripts, self._script = [], [], [], None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes
        self._script = dict(attributes).get("type", "run") if tag == "script" else None

    def handle_data(self, data):
        if self._script is not None:
            self.scripts.append((self._script, data))

    def handle_endtag(self, tag):
        self._script = None


def test_the_page_has_what_the_report_says():
    data = page_data(whole_report())
    assert data["headline"] == "1 leak, 4.0 MiB"
    assert data["notes"] == ["shard 2 of 3 is missing"]
    assert data["runs"][0]["partial"] == "it was interrupted"
    assert data["tests"]["name"] == ["test_a.py::test_it", "test_a.py::test_leaks", "test_a.py::test_leaves"]
    assert [data["lanes"][lane] for lane in data["tests"]["lane"]] == ["0 ", "0 ", "0 gw1"]
    assert data["uses"]["peak"] == [64 * MiB, -1]
    (told,) = data["leaks"]
    assert told == [
        1, "leaked 4.0 MiB on cuda:0 (threshold 1.0 MiB)", "cuda:0", 4 * MiB, "test_a.CACHE[3]", "", "test_a.py:12"
    ]  # fmt: skip
    assert [row[0] for row in data["left"]] == ["test_a.py::test_leaves", "a killed run"]
    assert data["steps"] == [["garbage", 2, MiB, 0.1, 1]]
    assert data["gaps"] == [["nvml", "it is not there"]]
    assert data["fixtures"] == [["model", "module", "test_a.py", 0, 0.0, 1.0]]
    assert data["problems"] == [["test_a.py::test_leaves", "a probe raised"]]


def test_the_data_comes_back_from_the_page():
    page = Page(text_of(hostile_report()))
    (data,) = [text for kind, text in page.scripts if kind == "application/json"]
    assert json.loads(data) == json.loads(script_safe(page_data(hostile_report())))
    assert len(json.loads(data)["tests"]["name"]) == len(HOSTILE)


def test_no_foreign_text_is_markup():
    clean, hostile = Page(text_of(Report())), Page(text_of(hostile_report()))
    assert hostile.tags == clean.tags
    assert hostile.attributes == clean.attributes
    assert len(hostile.scripts) == 3


def test_no_other_script_may_run_than_those_of_the_page():
    text = text_of(hostile_report())
    (policy,) = re.findall('Content-Security-Policy" content="([^"]*)"', text)
    assert "default-src 'none'" in policy
    hashes = set(re.findall("'sha256-([^']*)'", policy))
    scripts = [script for kind, script in Page(text).scripts if kind == "run"]
    assert {base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in scripts} == hashes
    assert "'unsafe-eval'" not in policy
    assert "script-src 'unsafe-inline'" not in policy


def test_nothing_is_fetched():
    page = Page(text_of(whole_report()))
    assert not {"src", "href", "srcset", "action"} & {name for name, _ in page.attributes}
    assert not {"link", "img", "iframe", "object", "form", "base"} & set(page.tags)
    assert "url(" not in text_of(Report())
    assert "@import" not in text_of(Report())


def test_the_licence_of_what_is_shipped_is_in_the_page():
    assert "Leon Sorokin" in text_of(Report())


@pytest.mark.parametrize("name", ["test_" + "x" * 95, "test_" + "x" * 50_000], ids=["usual", "absurd"])
def test_a_thousand_tests_take_no_more_than_a_megabyte(name):
    tests = [
        entry(
            f"{name}[{number}]",
            memory=(use(number, MiB, 2**34), use(number, MiB, 2**34, "cuda:1")),
            leaks=(leak(explanation=explanation(name)),) if number % 20 == 0 else (),
            left=(left(),) if number % 50 == 0 else (),
            given_back_bytes=2**33 + number,
        )
        for number in range(1000)
    ]
    assert len(text_of(Report(runs=(run(*tests),))).encode()) < 2**20
