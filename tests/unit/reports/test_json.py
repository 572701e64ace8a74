"""The JSON report: what is written is what its schema says, and what is read is looked at first."""

import io
import json
from pathlib import Path

import pytest

from pytest_gpuclean.errors import InputError
from pytest_gpuclean.reports.data import Report
from pytest_gpuclean.reports.json import JsonWriter, read_report
from unit.reports.world import entry, hostile_report, run, use, whole_report

SCHEMA = Path(__file__).parents[3] / "docs" / "report.schema.json"


def text_of(report):
    out = io.StringIO()
    JsonWriter().write(report, out)
    return out.getvalue()


@pytest.fixture(scope="module")
def validator():
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.mark.parametrize("report", [Report(), whole_report(), hostile_report()], ids=["empty", "whole", "hostile"])
def test_what_is_written_is_what_the_schema_says(validator, report):
    validator.validate(json.loads(text_of(report)))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("version",), 2),
        (("runs",), {}),
        (("runs", 0, "tests", 0, "outcome"), "fine"),
        (("runs", 0, "tests", 0, "memory", 0, "end_bytes"), "many"),
        (("runs", 0, "seconds"), None),
    ],
    ids=str,
)
def test_the_schema_and_the_reader_refuse_the_same(validator, path, value):
    data = json.loads(text_of(whole_report()))
    at = data
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = value
    assert not validator.is_valid(data)
    with pytest.raises(InputError, match="report.json"):
        read_report(json.dumps(data), "report.json")


def test_the_schema_is_made_from_the_classes():
    pytest.importorskip("jsonschema")
    import importlib.util

    spec = importlib.util.spec_from_file_location("make_schema", SCHEMA.with_name("make_schema.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert json.loads(SCHEMA.read_text(encoding="utf-8")) == module.schema()


@pytest.mark.parametrize("report", [Report(), whole_report(), hostile_report()], ids=["empty", "whole", "hostile"])
def test_what_is_written_is_read_again(report):
    assert read_report(text_of(report), "report.json") == report


def test_each_test_is_on_a_line_of_its_own():
    lines = text_of(Report(runs=(run(entry("test_1"), entry("test_2")),))).splitlines()
    assert [json.loads(line.strip(",]}"[:1]).rstrip("]}") + "}")["test"] for line in lines if '"test"' in line] == [
        "test_1",
        "test_2",
    ]


def test_what_a_later_version_adds_is_left_out():
    data = json.loads(text_of(whole_report()))
    data["runs"][0]["tests"][0]["temperature"] = 70
    assert read_report(json.dumps(data), "report.json") == whole_report()


def test_a_figure_that_is_missing_is_not_zero():
    (first,) = read_report(text_of(Report(runs=(run(entry(memory=(use(peak=None),))),))), "r").runs[0].tests
    assert first.memory[0].peak_bytes is None


BAD = [
    ("", "line 1, column 1"),
    ("{", "line 1, column 2"),
    ("[]", "no report of pytest-gpuclean"),
    ("null", "no report of pytest-gpuclean"),
    ('{"format": "something else", "version": 1}', "no report of pytest-gpuclean"),
    ('{"format": "pytest-gpuclean report"}', '"version" is no whole number'),
    ('{"format": "pytest-gpuclean report", "version": true}', '"version" is no whole number'),
    ('{"format": "pytest-gpuclean report", "version": 0}', '"version" is no whole number'),
    ('{"format": "pytest-gpuclean report", "version": 99}', "version 99 of the format is later than"),
    ('{"format": "pytest-gpuclean report", "version": 1}', '"runs" is missing'),
    ('{"format": "pytest-gpuclean report", "version": 1, "runs": [{}]}', r"runs\[0\]: id is missing"),
    ('{"format": "pytest-gpuclean report", "version": 1, "runs": [1]}', r"runs\[0\]: a number where Run belongs"),
    ('{"format": "pytest-gpuclean report", "version": 1, "runs": [NaN]}', "NaN is no JSON"),
    ('{"format": "pytest-gpuclean report", "version": 1, "runs": [], "notes": [null]}', r"notes\[0\]: null"),
    ("[" * 100_000, "nested too deeply"),
    ("<<<<<<< HEAD\n{}", "line 1, column 1"),
]


@pytest.mark.parametrize(("text", "says"), BAD, ids=[text[:60] for text, _ in BAD])
def test_what_is_no_report_is_refused_by_name(text, says):
    with pytest.raises(InputError, match=f"^shard.json.*{says}"):
        read_report(text, "shard.json")


@pytest.mark.parametrize("number", ["1" * 5000, "1e999", "-1e999", str(2**70), "true", '"5"', "null"])
def test_a_figure_that_is_none_is_refused_by_name(number):
    text = text_of(whole_report()).replace('"exit_status": 0', f'"exit_status": {number}')
    with pytest.raises(InputError, match="^shard.json"):
        read_report(text, "shard.json")


def test_a_report_that_was_cut_off_is_refused_wherever_it_was():
    text = text_of(whole_report())
    for length in range(0, len(text.rstrip()), 97):
        with pytest.raises(InputError, match=r"^shard.json: line \d+, column \d+"):
            read_report(text[:length], "shard.json")
