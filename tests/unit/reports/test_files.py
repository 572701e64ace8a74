"""A report is written whole or not at all, and never through a link."""

import os
import sys

import pytest

from pytest_gpuclean.errors import InputError
from pytest_gpuclean.reports.files import check_target, read_file, write_file


def test_a_file_is_written_with_the_folders_above_it(tmp_path):
    path = tmp_path / "a" / "b" / "report.json"
    check_target(str(path), "--gpu-report")
    write_file(str(path), lambda out: out.write("new\n"))
    assert path.read_text() == "new\n"
    assert os.listdir(path.parent) == ["report.json"]


def test_looking_whether_it_can_be_written_leaves_the_old_one(tmp_path):
    path = tmp_path / "report.json"
    path.write_text("old")
    check_target(str(path), "--gpu-report")
    assert (path.read_text(), os.listdir(tmp_path)) == ("old", ["report.json"])


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), ValueError("no"), KeyboardInterrupt()])
def test_the_old_file_stays_where_writing_fails(tmp_path, error):
    path = tmp_path / "report.json"
    path.write_text("old")

    def write(out):
        out.write("half of the n")
        raise error

    with pytest.raises(type(error)):
        write_file(str(path), write)
    assert (path.read_text(), os.listdir(tmp_path)) == ("old", ["report.json"])


def test_nothing_is_written_through_a_link(tmp_path):
    victim, path = tmp_path / "victim", tmp_path / "report.json"
    victim.write_text("kept")
    path.symlink_to(victim)
    with pytest.raises(InputError, match=r"--gpu-report: .* is a link; name the file that it leads to: .*victim"):
        check_target(str(path), "--gpu-report")
    with pytest.raises(OSError, match="is a link"):
        write_file(str(path), lambda out: out.write("new"))
    assert victim.read_text() == "kept"


def test_a_link_to_nothing_is_refused_too(tmp_path):
    path = tmp_path / "report.json"
    path.symlink_to(tmp_path / "nothing")
    with pytest.raises(InputError, match="is a link"):
        check_target(str(path), "--gpu-report")


@pytest.mark.skipif(sys.platform == "win32", reason="there are no FIFOs")
def test_what_is_no_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(InputError, match="is no ordinary file"):
        check_target(str(tmp_path / "pipe.json"), "--gpu-report")
    with pytest.raises(InputError, match="is a folder; name a file in it"):
        check_target(str(tmp_path), "--gpu-report")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written: "):
        check_target(str(tmp_path / "file" / "report.json"), "--gpu-report")
    with pytest.raises(InputError, match="cannot be written: File name too long"):
        check_target(str(tmp_path / ("n" * 300) / "report.json"), "--gpu-report")


def test_text_that_is_no_unicode_is_written_all_the_same(tmp_path):
    write_file(str(tmp_path / "r"), lambda out: out.write("\udc80é"))
    assert (tmp_path / "r").read_bytes() == b"\\udc80\xc3\xa9"


def test_a_file_is_read(tmp_path):
    (tmp_path / "r").write_text("é", encoding="utf-8")
    assert read_file(str(tmp_path / "r"), 2, "merge") == "é"


@pytest.mark.skipif(sys.platform == "win32", reason="there are no FIFOs")
def test_what_cannot_be_read_is_refused_by_name(tmp_path):
    (tmp_path / "large").write_text("abc")
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    os.mkfifo(tmp_path / "pipe")
    for name, says in [
        ("large", "is larger than 0 MiB"),
        ("bytes", "is no UTF-8 text: invalid start byte at byte 0"),
        ("pipe", "is no file"),
        ("", "is no file"),
        ("missing", "cannot be read: No such file"),
    ]:
        with pytest.raises(InputError, match=f"^merge: .*{says}"):
            read_file(str(tmp_path / name), 2, "merge")
