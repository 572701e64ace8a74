"""A run that was killed: the next one stops what it left, and nothing that could be anybody else's."""

import errno
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from processes.alone import alone, skip
from processes.starting import end, is_alive, python, sleeper, wait_for
from processes.victims import FOLDER, Victim, ledgers
from pytest_gpuclean.processes.identity import ProcessKey
from pytest_gpuclean.processes.ledger import begin_run
from pytest_gpuclean.processes.left_runs import forget_killed_inside, sweep
from pytest_gpuclean.processes.procfs import Procfs
from pytest_gpuclean.processes.run_record import RunRecord

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are proved by /proc")

HIDDEN = """
ready(
    sleeper().pid,
    orphan_that_executes(),
    orphan_that_forks(),
    sleeper(preexec_fn=os.setsid).pid,
)
"""
ONE = "ready(sleeper().pid)"


def look(**options):
    """Sweep, and give what was told by pid."""
    found = sweep(settle_seconds=10, folders=[os.path.abspath(FOLDER)], **options)
    return {left.pid: left for run in found.runs for left in run.processes}, found


@alone
def test_what_a_killed_run_left_is_stopped_and_told():
    with Victim(HIDDEN) as victim:
        victim.kill()
        told, found = look()
        assert victim.alive == [False] * 4
        assert set(told) == set(victim.pids)
        assert {left.ended_by for left in told.values()} <= {"SIGINT", "SIGTERM"}
        assert [run.name.endswith(f"(pid {victim.pid})") for run in found.runs] == [True]
        assert all(f"(pid {victim.pid})" in left.started_by for left in told.values())
        assert ledgers() == []
        assert look() == ({}, type(found)())


@alone
def test_the_ledger_of_a_run_that_was_killed_inside_of_this_one_goes_with_it():
    run, _ = begin_run(folders=[os.path.abspath(FOLDER)])
    with Victim("ready()") as inside, Victim("ready()", environ={"GPUCLEAN_RUN": "another"}) as outside:
        inside.kill()
        outside.kill()
        forget_killed_inside(run.claim, folders=[os.path.abspath(FOLDER)])
        assert {path.name.partition("-")[0] for path in ledgers()} == {str(os.getpid()), str(outside.pid)}


@alone
def test_it_stays_as_long_as_something_goes_on_that_the_killed_run_left():
    run, _ = begin_run(folders=[os.path.abspath(FOLDER)])
    with Victim("pid = sleeper().pid; note(pid); ready(pid)") as inside:
        inside.kill()
        forget_killed_inside(run.claim, folders=[os.path.abspath(FOLDER)])
        assert inside.alive == [True]
        assert len(ledgers()) == 2
        end(*inside.pids)
        wait_for(lambda: inside.alive == [False])
        forget_killed_inside(run.claim, folders=[os.path.abspath(FOLDER)])
        assert [path.name.startswith(f"{os.getpid()}-") for path in ledgers()] == [True]


@alone
def test_a_run_inside_that_lives_keeps_its_ledger():
    run, _ = begin_run(folders=[os.path.abspath(FOLDER)])
    with Victim("ready()"):
        forget_killed_inside(run.claim, folders=[os.path.abspath(FOLDER)])
        assert len(ledgers()) == 2


@alone
def test_a_run_that_is_alive_keeps_what_it_has():
    with Victim(HIDDEN) as living, Victim(HIDDEN) as killed:
        killed.kill()
        told, _ = look()
        assert set(told) == set(killed.pids)
        assert living.alive == [True] * 4
        assert is_alive(living.pid)
        assert [path.name.startswith(f"{living.pid}-") for path in ledgers()] == [True]


@alone
def test_a_run_that_lost_its_lock_is_still_alive():
    """A test that closes all descriptors unlocks the ledger."""
    with Victim("pid = sleeper().pid\nos.closerange(3, 256)\nready(pid)") as victim:
        told, _ = look()
        assert told == {}
        assert victim.alive == [True]
        victim.kill()
        look()
        assert victim.alive == [False]


@alone
def test_the_run_of_this_very_process_is_alive():
    """A pytest inside a pytest in one process: the lock of the outer one would be no hindrance here."""
    run, ledger = begin_run(folders=[os.path.abspath(FOLDER)], subreaper=False)
    child = sleeper()
    inner, inner_ledger = begin_run(folders=[os.path.abspath(FOLDER)], subreaper=False)
    told, _ = look(own=inner.claim)
    assert told == {}
    assert is_alive(child.pid)
    assert len(ledgers()) == 2
    code = "import fcntl, sys; fcntl.lockf(open(sys.argv[1], 'r+'), fcntl.LOCK_EX | fcntl.LOCK_NB)"
    held = [sys.executable, "-c", code, f"{ledger.folder}/{ledger.name}"]
    assert subprocess.run(held, stderr=subprocess.DEVNULL).returncode != 0
    end(child.pid)


@alone
def test_what_is_below_an_owned_one_goes_with_it():
    code = """
parent = python("import subprocess; p = subprocess.Popen(['sleep', '100'], env={'PATH': '/usr/bin:/bin'});"
                "print('ready', p.pid, flush=True); p.wait()")
ready(parent.pid, int(parent.said[0]))
"""
    with Victim(code) as victim:
        victim.kill()
        told, _ = look()
        assert victim.alive == [False, False]
        assert set(told) == set(victim.pids)


@alone
def test_what_the_run_had_written_down_is_found_without_any_mark():
    with Victim("pid = orphan_that_executes(environ=bare); note(pid, 'test_server'); ready(pid)") as victim:
        victim.kill()
        told, _ = look()
        assert victim.alive == [False]
        assert told[victim.pids[0]].started_by.startswith("test_server, in ")


@alone
def test_a_number_that_was_given_to_another_process_is_not_hit():
    innocent = sleeper(env={"PATH": os.environ["PATH"]})
    ticks = Procfs().stat(innocent.pid).start_ticks
    code = f"ledger.write([Seen(key=ProcessKey({innocent.pid}, {ticks - 1}))]); ready()"
    with Victim(code) as victim:
        victim.kill()
        told, _ = look()
        assert told == {}
        assert is_alive(innocent.pid)
    end(innocent.pid)


@alone
def test_a_run_whose_number_has_another_process_by_now_is_dead():
    with Victim(ONE) as victim:
        path = ledgers()[0]
        victim.kill()
        key = f'"key":[{victim.pid},'.encode()
        assert key in path.read_bytes()
        path.write_bytes(path.read_bytes().replace(key, f'"key":[{os.getpid()},'.encode()))
        told, _ = look()
        assert set(told) == set(victim.pids)


@alone
def test_what_was_disowned_goes_on_with_what_is_below_it():
    code = """
kept = python("import subprocess; p = subprocess.Popen(['sleep', '100']); print('ready', p.pid, flush=True); p.wait()")
note(kept.pid)
ledger.keep([key_of(kept.pid)])
ready(kept.pid, int(kept.said[0]), sleeper().pid)
"""
    with Victim(code) as victim:
        victim.kill()
        told, _ = look()
        assert victim.alive == [True, True, False], (victim.alive, told)
        assert set(told) == {victim.pids[2]}


@alone
def test_what_bears_the_mark_to_be_kept_goes_on():
    with Victim("ready(sleeper(env={**os.environ, 'GPUCLEAN_KEEP': '1'}).pid, sleeper().pid)") as victim:
        victim.kill()
        told, _ = look()
        assert victim.alive == [True, False]
        assert told[victim.pids[0]].reason == "it bears GPUCLEAN_KEEP=1"
        assert ledgers() == [], "told once"


@alone
def test_a_look_stops_nothing():
    with Victim(HIDDEN) as victim:
        victim.kill()
        for _ in range(2):
            told, _ = look(report_only=True)
            assert set(told) == set(victim.pids)
            assert all(left.is_alive and left.reason for left in told.values())
        assert victim.alive == [True] * 4
        look()
        assert victim.alive == [False] * 4


@alone
def test_a_run_inside_the_killed_one_that_lives_keeps_what_it_has():
    inner = """
import processes.victims as v
inner = v.Victim("ready(sleeper().pid, orphan_that_executes())", folder=sys.argv[1])
ready(inner.pid, *inner.pids, sleeper().pid)
"""
    with Victim(inner) as victim:
        victim.kill()
        told, _ = look()
        assert victim.alive == [True, True, True, False]
        assert set(told) == {victim.pids[3]}
        os.kill(victim.pids[0], signal.SIGKILL)
        wait_for(lambda: not is_alive(victim.pids[0]))
        told, _ = look()
        assert set(told) == set(victim.pids[1:3])


@alone
def test_what_a_dead_run_left_inside_of_a_living_one_is_that_ones():
    outer = """
import processes.victims as v
inner = v.Victim("ready(sleeper().pid)", folder=sys.argv[1]).kill()
ready(*inner.pids)
"""
    with Victim(outer) as victim:
        told, _ = look()
        assert told == {}
        assert victim.alive == [True]
        assert len(ledgers()) == 2
        victim.kill()
        told, _ = look()
        assert set(told) == set(victim.pids)
        assert ledgers() == []


SWEEP = (
    "import os, sys; from pytest_gpuclean.processes.left_runs import forget_killed_inside, sweep; "
    "found = sweep(settle_seconds=10, folders=[sys.argv[1]]); "
    "print(*(left.pid for run in found.runs for left in run.processes if left.ended_by), flush=True)"
)


@alone
def test_a_user_who_works_in_what_the_killed_run_left_is_not_hit():
    """A shell that descends from the killed run: an editor, a server and the next run are started from it."""
    shell = f"""
server = sleeper()
note(server.pid)
time.sleep(0.05)
shell = subprocess.Popen(["sh"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True)
note(shell.pid)
shell.stdin.write('sleep 100 & echo $!; sleep 100 & echo $!; (sleep 100 & echo $!); (sleep 100 & echo $!); mkfifo go; '
    'cat go > /dev/null; {sys.executable} -c "$SWEEP" {os.path.abspath(FOLDER)} > swept; read end\\n')
shell.stdin.flush()
pids = [int(shell.stdout.readline()) for _ in range(4)]
note(pids[0])  # while the run lived, it saw some of them
note(pids[2])
os.set_inheritable(shell.stdin.fileno(), True)
keeper = sleeper(pass_fds=[shell.stdin.fileno()])  # its input stays open when the run is killed
ready(server.pid, shell.pid, *pids, keeper.pid)
"""
    with Victim(shell, environ={"SWEEP": SWEEP}) as victim:
        victim.kill()
        wait_for(lambda: Path("go").exists())
        Path("go").write_text("now")
        wait_for(lambda: Path("swept").exists() and Path("swept").read_text().endswith("\n"))
        stopped = [int(pid) for pid in Path("swept").read_text().split()]
        assert stopped == victim.pids[:1], "the run itself had written it down, before there was this session"
        assert victim.alive == [False] + [True] * 6


@alone
def test_a_session_in_a_terminal_of_its_own_is_not_hit():
    """tmux by another name: what the run left holds a terminal in which a user works."""
    code = """
import pty
pid, terminal = pty.fork()
if pid == 0:
    os.execvp("sh", ["sh", "-c", "signal=1; sleep 100 & wait"])
server = sleeper()
os.set_inheritable(terminal, True)
keeper = sleeper(pass_fds=[terminal])  # the terminal goes on
time.sleep(0.05)
later = sleeper()
ready(pid, server.pid, keeper.pid, later.pid)
"""
    with Victim(code) as victim:
        victim.kill()
        told, _ = look()
        assert is_alive(victim.pids[0])
        assert "in another terminal" in told[victim.pids[0]].reason
        assert is_alive(victim.pids[3])
        assert told[victim.pids[3]].reason.startswith("left alone: it started after a process of another session")
        assert all("stopped" not in left.reason for left in told.values())


@alone
def test_two_at_once_do_it_once():
    with Victim(HIDDEN) as victim:
        victim.kill()
        both = [
            subprocess.Popen([sys.executable, "-c", SWEEP, os.path.abspath(FOLDER)], stdout=subprocess.PIPE, text=True)
            for _ in range(2)
        ]
        said = [process.communicate()[0].split() for process in both]
        assert [process.returncode for process in both] == [0, 0]
        assert victim.alive == [False] * 4
        assert sorted(map(int, said[0] + said[1])) == sorted(victim.pids), "each by one of them"
        assert ledgers() == []


@alone
def test_a_fork_of_the_killed_run_does_not_keep_it_alive():
    """And gets no SIGINT: that would raise KeyboardInterrupt in a copy of the whole run."""
    with Victim("ready(orphan_that_forks())") as victim:
        victim.kill()
        told, _ = look()
        assert told[victim.pids[0]].ended_by == "SIGTERM"


POOLS = """
import multiprocessing
from multiprocessing import shared_memory
pools = [multiprocessing.get_context(kind).Pool(1) for kind in ("fork", "spawn")]
for pool in pools:
    pool.map(abs, range(2))
memory = shared_memory.SharedMemory(create=True, size=1000)
with open("memory", "w") as file:
    file.write(memory.name)
from multiprocessing import resource_tracker
ready(*(worker.pid for pool in pools for worker in pool._pool), resource_tracker._resource_tracker._pid)
"""


@alone
def test_a_resource_tracker_unlinks_the_memory_and_is_not_told_once_it_has():
    with Victim(POOLS) as victim:
        memory = Path("/dev/shm", Path("memory").read_text().lstrip("/"))
        assert memory.exists()
        victim.kill()
        told, _ = look()
        wait_for(lambda: not any(victim.alive))
        assert victim.pids[2] not in told
        assert not memory.exists()


def write(name, data, mode=0o600, age=0.0):
    path = Path(FOLDER, name)
    path.parent.mkdir(mode=0o700, exist_ok=True)
    path.write_bytes(data)
    path.chmod(mode)
    if age:
        os.utime(path, (time.time() - age, time.time() - age))
    return path


ID = "0123456789abcdef"


@alone
def test_files_that_are_no_ledgers_are_told_and_never_waited_for():
    Path(FOLDER).mkdir(mode=0o700)
    os.mkfifo(f"{FOLDER}/2-fifo.jsonl", 0o600)
    Path(FOLDER, "2-folder.jsonl").mkdir()
    Path("elsewhere").write_text("{}")
    Path(FOLDER, "2-link.jsonl").symlink_to(os.path.abspath("elsewhere"))
    server = socket.socket(socket.AF_UNIX)
    server.bind(f"{FOLDER}/2-socket.jsonl")
    write("2-binary.jsonl", b"\x00\xff" * 500)
    write("2-empty.jsonl", b"")
    write("2-future.jsonl", b'{"version":99}\n', age=100_000)
    write("2-open.jsonl", b"{}\n", mode=0o640)
    huge = write("2-huge.jsonl", b"")
    os.truncate(huge, 10**12)
    write("somebody's notes", b"hello", age=100_000)
    old = write("2-old.jsonl", b"nonsense\n", age=100_000)
    unfinished = write(".new-2-x", b"", age=100_000)
    begin = time.monotonic()
    told, found = look()
    assert time.monotonic() - begin < 20
    assert told == {}
    notes = {note.partition(" ")[0].rpartition("/")[2]: note for note in found.notes}
    for name, reason in {
        "2-fifo.jsonl": "is no regular file",
        "2-folder.jsonl": "is no regular file",
        "2-link.jsonl": "is no regular file",
        "2-socket.jsonl": "is no regular file",
        "2-binary.jsonl": "is broken",
        "2-empty.jsonl": "is broken",
        "2-future.jsonl": "is of a later pytest-gpuclean (version 99)",
        "2-open.jsonl": "is open to others (mode 0640)",
        "2-huge.jsonl": "is too big",
        "2-old.jsonl": "and was removed",
    }.items():
        assert reason in notes.pop(name)
    assert notes == {}
    assert not old.exists()
    assert not unfinished.exists()
    assert len(ledgers()) == 10


@alone
def test_a_run_whose_ledger_cannot_be_locked_is_told_and_left_alone():
    """On a file system without locks nobody knows whether it is alive."""
    import fcntl

    def without_locks(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    with Victim(ONE) as victim:
        victim.kill()
        lockf, fcntl.lockf = fcntl.lockf, without_locks
        try:
            told, found = look()
        finally:
            fcntl.lockf = lockf
        assert (told, victim.alive) == ({}, [True])
        path = f"{os.path.abspath(FOLDER)}/{ledgers()[0].name}"
        assert found.notes == (f"{path} No locks available: what that run left is not known",)
        look()
        assert victim.alive == [False]


@alone
def test_a_run_that_is_just_beginning_is_neither_told_nor_disturbed():
    Path(FOLDER).mkdir(mode=0o700)
    holder = python(
        "import fcntl, sys, time; file = open(sys.argv[1], 'w'); fcntl.lockf(file, fcntl.LOCK_EX);"
        "print('ready', flush=True); time.sleep(100)",
        str(write(".new-2-locked", b"")),
    )
    try:
        unlocked = write(".new-3-unlocked", b"")
        told, found = look()
        assert (told, found.notes) == ({}, ())
        assert unlocked.exists()
    finally:
        end(holder.pid)


@alone
def test_a_ledger_of_another_start_of_the_system_is_removed_and_one_of_another_namespace_is_left():
    code = "pid = orphan_that_executes(environ=bare); note(pid); ready(pid, sleeper().pid)"
    with Victim(code) as victim:
        path = ledgers()[0]
        victim.kill()
        data = path.read_bytes()
        record = RunRecord.from_lines(data)
        boot, namespace = record.claim.boot_id.encode(), record.claim.pid_namespace.encode()
        write(path.name, data.replace(boot, b"another-boot"))
        assert look()[0] == {}
        assert not path.exists()
        write(path.name, data.replace(namespace, b"pid:[1]"))
        assert look()[0] == {}
        assert path.exists()
        write(path.name, data.replace(b'"uid":', b'"uid":1'))
        assert look()[0] == {}
        assert victim.alive == [True, True]


@alone
def test_a_run_that_is_alive_and_cannot_be_read_makes_it_a_mere_look():
    with Victim(ONE) as killed, Victim(ONE) as living:
        killed.kill()
        path = next(path for path in ledgers() if path.name.startswith(f"{living.pid}-"))
        with path.open("r+b") as file:
            file.write(path.read_bytes().replace(b'"version":1', b'"version":9', 1))
        told, found = look()
        assert [is_alive(pid) for pid in (*killed.pids, *living.pids)] == [True, True]
        assert set(told) == set(killed.pids)
        assert "and its run is alive" in found.notes[0]


@alone
def test_a_folder_that_cannot_be_believed_is_told():
    Path("real").mkdir(mode=0o700)
    with Victim(ONE, folder="real") as victim:
        victim.kill()
        Path("link").symlink_to("real")
        found = sweep(settle_seconds=5, folders=[os.path.abspath("link"), os.path.abspath("missing")])
        assert found.notes == (f"{os.path.abspath('link')} is a link: what killed runs left is not looked for there",)
        Path("real").chmod(0o770)
        assert "mode 0770" in sweep(settle_seconds=5, folders=[os.path.abspath("real")]).notes[0]
        if os.geteuid() == 0:
            Path("real").chmod(0o700)
            os.chown("real", 12345, 12345)
            assert "uid 12345" in sweep(settle_seconds=5, folders=[os.path.abspath("real")]).notes[0]
        assert victim.alive == [True]


@alone
def test_a_ledger_of_somebody_else_is_not_believed():
    if os.geteuid() != 0:
        skip("to give a file away takes root")
    with Victim(ONE) as victim:
        victim.kill()
        os.chown(ledgers()[0], 12345, 12345)
        told, found = look()
        assert told == {}
        assert "belongs to uid 12345" in found.notes[0]
        assert victim.alive == [True]


@alone
def test_what_does_not_end_is_tried_again_by_the_next():
    with Victim("ready(orphan_that_executes('sleep', '100'))") as victim:
        victim.kill()
        found = sweep(settle_seconds=0, folders=[os.path.abspath(FOLDER)])
        assert [run.processes[0].pid for run in found.runs] == victim.pids
        look()
        assert victim.alive == [False]


@alone
def test_only_what_is_below_this_process_is_its_own():
    """`sh -c 'pytest a; pytest b'` in a container: the shell is what orphans are given to."""
    bystander = python("print('ready', flush=True); signal.pause()", env={"PATH": os.environ["PATH"]})
    with Victim(ONE) as victim:
        victim.kill()
        assert ProcessKey(bystander.pid, Procfs().stat(bystander.pid).start_ticks)
        look()
        assert victim.alive == [False]
        assert is_alive(bystander.pid)
