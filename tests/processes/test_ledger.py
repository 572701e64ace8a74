"""The run's ledger: there while the run lives, locked, the user's own, and gone at its end."""

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from processes.alone import alone, skip
from processes.starting import end, sleeper
from pytest_gpuclean.processes.identity import ProcessKey
from pytest_gpuclean.processes.ledger import MOST_BYTES, Ledger, begin_run, open_ledger
from pytest_gpuclean.processes.procfs import Procfs
from pytest_gpuclean.processes.run_folder import NoLedger, folders_of
from pytest_gpuclean.processes.run_record import RunRecord, Seen

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="ledgers are for what /proc proves")


def begin(folder="ledgers", **options):
    run, ledger = begin_run(folders=[os.path.abspath(folder)], subreaper=False, **options)
    return run, ledger


def file_of(ledger):
    return Path(ledger.folder, ledger.name)


def is_locked(path):
    """Ask from another process: one's own lock is no hindrance."""
    code = "import fcntl, sys; fcntl.lockf(open(sys.argv[1], 'r+'), fcntl.LOCK_EX | fcntl.LOCK_NB)"
    return subprocess.run([sys.executable, "-c", code, str(path)], stderr=subprocess.DEVNULL).returncode != 0


@alone
def test_it_says_what_the_run_is_known_by_and_goes_at_its_end():
    run, ledger = begin()
    record = RunRecord.from_lines(file_of(ledger).read_bytes())
    assert record.claim == run.claim
    assert record.claim.ledger is not None
    assert record.key == ProcessKey(os.getpid(), Procfs().stat(os.getpid()).start_ticks)
    assert "processes.alone" in record.name
    path = file_of(ledger)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    ledger.close()
    ledger.close()
    assert not path.exists()


@alone
def test_processes_are_written_down_once_and_forgotten_when_they_are_kept():
    _, ledger = begin()
    first, second = Seen(key=ProcessKey(5, 50), started_by="test_a"), Seen(key=ProcessKey(6, 60), label="x")
    ledger.write([first])
    size = file_of(ledger).stat().st_size
    ledger.write([first])
    assert file_of(ledger).stat().st_size == size
    ledger.write([first, second])
    ledger.keep([second.key])
    ledger.write([first, second])
    record = RunRecord.from_lines(file_of(ledger).read_bytes())
    assert record.seen == (first, second)
    assert record.claim.recorded == {first.key}
    assert record.kept == {second.key}
    assert record.started_by(first.key).startswith("test_a, in ")


@alone
def test_it_stays_small_however_many_processes_there_were():
    run, ledger = begin()
    ledger.keep([ProcessKey(7, 7)])
    for number in range(1, 30_000):
        ledger.write([Seen(key=ProcessKey(number, number), label="sleep", started_by="test_" + "x" * 150)])
        if number % 1000 == 0:
            assert file_of(ledger).stat().st_size <= MOST_BYTES
    record = RunRecord.from_lines(file_of(ledger).read_bytes())
    assert ProcessKey(29_999, 29_999) in record.claim.recorded
    assert record.kept == {ProcessKey(7, 7)}
    assert record.claim.ledger == run.claim.ledger
    assert not ledger.problem
    ledger.write([Seen(key=ProcessKey(number, number), started_by="x" * 150) for number in range(1, 30_000)])
    assert file_of(ledger).stat().st_size <= MOST_BYTES


@alone
def test_a_fork_cannot_write_or_remove_it():
    _, ledger = begin()
    before = file_of(ledger).read_bytes()
    pid = os.fork()
    if pid == 0:
        ledger.write([Seen(key=ProcessKey(5, 50))])
        ledger.keep([ProcessKey(5, 50)])
        ledger.close()
        os._exit(0)
    os.waitpid(pid, 0)
    assert file_of(ledger).read_bytes() == before


@alone
def test_the_lock_holds_while_a_fork_comes_and_goes_and_ends_with_the_run_though_a_fork_lives():
    read_end, write_end = os.pipe()
    runner = os.fork()
    if runner == 0:
        signal.alarm(100)
        _, ledger = begin()
        if (gone := os.fork()) == 0:
            ledger.close()
            os._exit(0)
        os.waitpid(gone, 0)
        if (stays := os.fork()) == 0:
            signal.alarm(100)
            while True:
                signal.pause()
        os.write(write_end, f"{stays} {ledger.folder}/{ledger.name}\n".encode())
        while True:
            signal.pause()
    with os.fdopen(read_end) as pipe:
        stays, path = pipe.readline().split()
    try:
        assert is_locked(path)
        os.kill(runner, signal.SIGKILL)
        os.waitpid(runner, 0)
        assert not is_locked(path)
    finally:
        end(int(stays))


@alone
def test_a_test_that_closes_all_descriptors_costs_the_ledger_and_nothing_else():
    _, ledger = begin()
    path = file_of(ledger)
    os.closerange(3, 256)
    other = os.open("innocent", os.O_RDWR | os.O_CREAT)
    os.dup2(other, ledger.descriptor)
    ledger.write([Seen(key=ProcessKey(5, 50))])
    assert "closed the descriptor" in ledger.problem
    ledger.close()
    assert not path.exists()
    assert os.fstat(ledger.descriptor).st_size == 0, "it is somebody else's by now: neither written to nor closed"


@alone
def test_the_second_folder_serves_where_the_first_cannot():
    Path("file").write_text("")
    ledger = open_ledger([os.path.abspath("file"), os.path.abspath("second")])
    assert isinstance(ledger, Ledger)
    assert ledger.folder == os.path.abspath("second")


def refusal(folder):
    run, ledger = begin(folder)
    assert isinstance(ledger, NoLedger)
    assert run.claim.ledger is None
    run.end()
    return ledger.reason


@alone
def test_a_folder_that_is_not_the_users_alone_is_refused():
    Path("real").mkdir(mode=0o700)
    Path("link").symlink_to("real")
    assert refusal("link") == f"{os.path.abspath('link')} is a link"
    Path("open").mkdir()
    Path("open").chmod(0o750)
    assert "is open to others (mode 0750; 0700 would be right)" in refusal("open")
    Path("file").write_text("")
    assert "Not a directory" in refusal("file")
    assert "No such file" in refusal("missing/below")
    assert list(Path("real").iterdir()) == []
    assert list(Path("open").iterdir()) == []


@alone
def test_a_folder_of_somebody_else_is_refused():
    if os.geteuid() != 0:
        skip("to give a folder away takes root")
    Path("theirs").mkdir(mode=0o700)
    os.chown("theirs", 12345, 12345)
    assert "belongs to uid 12345" in refusal("theirs")
    assert list(Path("theirs").iterdir()) == []


@pytest.mark.not_measured
@alone
def test_a_full_disk_is_told_and_leaves_no_file():
    Path("ledgers").mkdir(mode=0o700)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    assert "File too large" in refusal("ledgers")
    assert list(Path("ledgers").iterdir()) == []


@pytest.mark.not_measured
@alone
def test_a_disk_that_runs_full_later_leaves_what_was_written():
    _, ledger = begin()
    ledger.write([Seen(key=ProcessKey(5, 50))])
    size = file_of(ledger).stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, resource.RLIM_INFINITY))
    ledger.write([Seen(key=ProcessKey(5, 50)), Seen(key=ProcessKey(6, 60))])
    assert "no more room" in ledger.problem
    assert file_of(ledger).stat().st_size == size
    assert RunRecord.from_lines(file_of(ledger).read_bytes()).claim.recorded == {ProcessKey(5, 50)}


@alone
def test_an_executed_child_has_not_inherited_it():
    _, ledger = begin()
    child = sleeper()
    try:
        assert Procfs().file_of(child.pid, ledger.descriptor) is None
    finally:
        end(child.pid)


def test_the_runtime_folder_is_preferred_where_it_is_the_users_alone(tmp_path):
    own, shared = tmp_path / "own", tmp_path / "shared"
    own.mkdir(mode=0o700)
    shared.mkdir()
    shared.chmod(0o755)
    assert folders_of({"XDG_RUNTIME_DIR": str(own)})[0] == f"{own}/gpuclean"
    assert folders_of({"XDG_RUNTIME_DIR": str(own)})[1].endswith(f"gpuclean-{os.geteuid()}")
    for bad in (str(shared), "relative", "", str(tmp_path / "missing")):
        assert len(folders_of({"XDG_RUNTIME_DIR": bad})) == 1
