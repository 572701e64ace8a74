"""`gpuclean report merge`: what it writes, what it refuses, and its exit status."""

import io
import json

import pytest

from pytest_gpuclean.cli import main
from pytest_gpuclean.reports.data import Report, Shard
from pytest_gpuclean.reports.json import JsonWriter, read_report
from unit.reports.world import entry, hostile_report, leak, run


def write(path, report):
    out = io.StringIO()
    JsonWriter().write(report, out)
    path.write_text(out.getvalue(), encoding="utf-8", errors="backslashreplace")
    return str(path)


@pytest.fixture
def shards(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for index in (1, 2):
        tests = [entry(f"test_{index}", leaks=(leak(),))]
        made = run(*tests, id=f"run {index}", shard=Shard(index=index, total=2, source="--splits"))
        write(tmp_path / f"{index}.json", Report(runs=(made,)))
    return tmp_path


def test_shards_become_one_report_in_every_format(shards, capsys):
    assert main(["report", "merge", "1.json", "2.json", "-o", "all.json", "-o", "out/all.md"]) == 0
    told = capsys.readouterr()
    assert (told.out, told.err) == ("2 runs, 2 tests: 2 leaks, 8.0 MiB; in all.json, out/all.md\n", "")
    assert len(read_report((shards / "all.json").read_text(), "all").runs) == 2
    assert (shards / "out/all.md").read_text().startswith("## gpuclean: 2 leaks, 8.0 MiB\n")


def test_what_is_missing_is_told_and_the_exit_status_says_so(shards, capsys):
    assert main(["report", "merge", "1.json", "-o", "all.json"]) == 1
    told = capsys.readouterr()
    assert told.err == "gpuclean report merge: 1 of 2 shards missing: 2\n"
    assert told.out == "1 run, 1 test: 1 leak, 4.0 MiB; in all.json\n"
    assert (shards / "all.json").exists()
    assert main(["report", "merge", "1.json", "2.json", "-o", "all.json", "--shards=3"]) == 1


def test_it_says_it_in_json_too(shards, capsys):
    assert main(["report", "merge", "1.json", "-o", "all.json", "--json"]) == 1
    assert json.loads(capsys.readouterr().out) == {
        "written": ["all.json"],
        "runs": 1,
        "tests": 1,
        "leaks": 1,
        "is_whole": False,
        "notes": ["1 of 2 shards missing: 2"],
    }


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["-o", "all.json"], "there is nothing to merge"),
        (["1.json"], "-o FILE is missing"),
        (["1.json", "-o", "all.json", "--shards=many"], "'many' is no count"),
    ],
)
def test_wrong_arguments_are_refused(shards, capsys, arguments, says):
    with pytest.raises(SystemExit) as error:
        main(["report", "merge", *arguments])
    assert error.value.code == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("files", "output", "says"),
    [
        (["1.json", "missing.json"], "all.json", "'missing.json' cannot be read: No such file"),
        (["1.json", "."], "all.json", "'.' is no file"),
        (["1.json", "cut.json"], "all.json", "cut.json: line 7, column"),
        (["1.json", "future.json"], "all.json", "future.json: version 2 of the format is later"),
        (["1.json", "other.json"], "all.json", "other.json: this is no report"),
        (["1.json", "2.json"], "all.xml", "-o: 'all.xml' ends in none of .json"),
        (["1.json", "2.json"], "1.json", "-o: '1.json' is one of the files to merge"),
        (["1.json", "2.json"], "folder.json", "-o: 'folder.json' is a folder"),
        (["1.json", "2.json"], "link.json", "-o: 'link.json' is a link"),
        (["1.json", "2.json"], "1.json/all.json", "-o: '1.json/all.json' cannot be written"),
    ],
)
def test_what_cannot_be_merged_is_refused_by_name_and_nothing_is_written(shards, capsys, files, output, says):
    text = (shards / "1.json").read_text()
    (shards / "cut.json").write_text(text[:-40])
    (shards / "future.json").write_text(text.replace('"version": 1', '"version": 2'))
    (shards / "other.json").write_text('{"runs": []}')
    (shards / "folder.json").mkdir()
    (shards / "link.json").symlink_to("elsewhere.json")
    assert main(["report", "merge", *files, "-o", output]) == 2
    told = capsys.readouterr()
    assert told.err.startswith("gpuclean report merge: ")
    assert says in told.err
    assert told.out == ""
    assert not (shards / "all.json").exists()
    assert (shards / "1.json").read_text() == text


def test_foreign_text_does_not_reach_the_terminal_as_it_is(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    report = hostile_report()
    files = [write(tmp_path / "a.json", report)]
    again = Report(runs=(run(*report.runs[0].tests, id="two\x1b[31m"),))
    files.append(write(tmp_path / "b\x1b[31m.json", again))
    files.append(files[1])
    assert main(["report", "merge", *files, "-o", "all.md", "-o", "all.json"]) == 0
    told = capsys.readouterr()
    assert "\x1b" not in told.out + told.err
    assert "ran in more than one run" in told.err
