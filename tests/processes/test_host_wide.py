"""What the user has named is stopped, told first; what only looks like it is not.

Whoever runs these tests may have a TensorBoard of their own: a plan is carried out here for names that nobody else has,
or cut down to what the test has started.
"""

import atexit
import os
import secrets
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from processes.alone import alone, skip
from processes.starting import STANDINS, end, is_alive, standin, until_ready, wait_for
from processes.victims import FOLDER, Victim
from pytest_gpuclean.processes.host_wide import carry_out, plan
from pytest_gpuclean.processes.identity import ProcessKey
from pytest_gpuclean.processes.ledger import begin_run
from pytest_gpuclean.processes.procfs import Procfs
from pytest_gpuclean.processes.selectors import parse_selectors

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are looked at by /proc")

WAITS = """
import signal, subprocess, sys
signal.alarm(100)
started = [subprocess.Popen(["sleep", "100"], env={**__import__("os").environ, **env}) for env in ENVIRONS]
print("ready", *(each.pid for each in started), flush=True)
while True:
    signal.pause()
"""


def write_script(name=None, code=WAITS, environs=()):
    name = name or f"bag_{secrets.token_hex(8)}.py"
    Path(name).write_text(f"ENVIRONS = {list(environs)!r}\n{code}")
    return name


def start_child(argv, **options):
    """Start Python under any name: `vim bag_test.py` is one of a kind then that does not end by itself."""
    words = [sys.executable if argv[0] == "python" else argv[0], *argv[1:]]
    if argv[0] != "python":  # by its name it would look for its library
        options = {"env": {**os.environ, "PYTHONHOME": sys.base_prefix}, **options}
    return until_ready(subprocess.Popen(words, executable=sys.executable, stdout=subprocess.PIPE, text=True, **options))


class Elsewhere:
    """A process that is not below this one: what is below this one is its own run's business."""

    def __init__(self, starter):
        read_end, write_end = os.pipe()
        if (middle := os.fork()) == 0:
            try:
                process = starter()
                os.write(write_end, f"{process.pid} {' '.join(process.said)}\n".encode())
            finally:
                os._exit(0)
        os.waitpid(middle, 0)
        os.close(write_end)
        with os.fdopen(read_end) as pipe:
            self.pid, *self.said = map(int, pipe.readline().split())
        atexit.register(end, self.pid)


def start(argv, **options):
    return Elsewhere(lambda: start_child(argv, **options))


def find(names, own=None):
    selectors = parse_selectors(names, "test")
    return plan(selectors, own, folders=[os.path.abspath(FOLDER)])


def stop(planned, own=None):
    lines = []
    told = carry_out(planned, own, tell=lines.append, settle_seconds=10, folders=[os.path.abspath(FOLDER)])
    return {left.pid: left for left in told}, lines


@alone
def test_a_script_is_stopped_and_an_editor_a_grep_and_a_longer_name_are_not():
    name = write_script()
    longer = write_script(f"my_{name}")
    script = start(["python", "-u", os.path.abspath(name), "--bag", "x"], cwd="/")
    innocent = [
        start(["vim", name]),
        start(["grep", name]),
        start(["python", longer]),
        start(["python", "-c", "import sys; sys.argv = ['x']; ENVIRONS = []\n" + WAITS, name]),
    ]
    pids = [process.pid for process in innocent]
    planned = find(f"script:{name}")
    assert [named.key.pid for named in planned.to_stop] == [script.pid]
    assert all(map(is_alive, [script.pid, *pids])), "a plan stops nothing"
    told, lines = stop(planned)
    assert list(told) == [script.pid]
    assert not is_alive(script.pid)
    assert all(map(is_alive, pids))
    assert lines == [planned.to_stop[0].line]
    assert lines[0].startswith(f"script:{name} stops python {name[:20]}")
    assert f"(pid {script.pid}): " in lines[0]
    assert " -u " in lines[0], "the command line"


@alone
def test_nothing_is_signalled_before_the_whole_plan_was_told():
    name = write_script()
    scripts = [start(["python", name]) for _ in range(3)]
    planned = find(f"script:{name}")
    assert len(planned.to_stop) == 3
    heard = []

    def tell(line):
        assert all(is_alive(script.pid) for script in scripts)
        heard.append(line)

    carry_out(planned, tell=tell, settle_seconds=10, folders=[os.path.abspath(FOLDER)])
    assert heard == list(planned.lines)
    assert not any(is_alive(script.pid) for script in scripts)

    class Deaf(Exception):
        pass

    def refuse(line):
        raise Deaf

    again = start(["python", name])
    with pytest.raises(Deaf):
        carry_out(find(f"script:{name}"), tell=refuse, settle_seconds=10, folders=[os.path.abspath(FOLDER)])
    assert is_alive(again.pid)


@alone
def test_what_a_script_has_started_goes_with_it_and_what_is_to_be_kept_stays():
    name = write_script(environs=[{}, {"GPUCLEAN_KEEP": "1"}])
    script = start(["python", name])
    worker, kept = script.said
    planned = find(f"script:{name}")
    assert {named.key.pid for named in planned.to_stop} == {script.pid, worker}
    told, lines = stop(planned)
    assert [is_alive(pid) for pid in (script.pid, worker, kept)] == [False, False, True]
    assert any("leaves kept" in line and "GPUCLEAN_KEEP=1" in line for line in lines)
    assert kept not in told
    end(kept)


@alone
def test_what_started_after_the_plan_or_has_become_something_else_is_not_touched():
    name = write_script()
    changes = write_script(
        code="import os, signal\nsignal.alarm(100)\n"
        "signal.signal(signal.SIGUSR1, lambda *_: os.execvp('sleep', ['sleep', '100']))\n"
        "print('ready', flush=True)\nwhile True: signal.pause()\n"
    )
    first, changing = start(["python", name]), start(["python", changes])
    planned = find([f"script:{name}", f"script:{changes}"])
    assert len(planned.to_stop) == 2
    later = start(["python", name])
    os.kill(changing.pid, signal.SIGUSR1)
    wait_for(lambda: Procfs().argv(changing.pid) == ("sleep", "100"))
    told, _ = stop(planned)
    assert [is_alive(process.pid) for process in (first, later, changing)] == [False, True, True]
    assert list(told) == [first.pid]


@alone
def test_a_number_that_was_given_to_another_process_is_not_hit():
    name = write_script()
    script = start(["python", name])
    planned = find(f"script:{name}")
    old = planned.named[0]
    reused = replace(planned, named=(replace(old, key=ProcessKey(old.key.pid, old.key.start_ticks - 1)),))
    told, _ = stop(reused)
    assert told == {}
    assert is_alive(script.pid)


@alone
def test_all_holders_of_a_port_are_stopped_and_nobody_on_another_one():
    shared = Elsewhere(lambda: standin("listener.py", "0", "fork"))
    innocent = Elsewhere(lambda: standin("listener.py", "0"))
    port, fork = shared.said
    planned = find(f"port:{port}")
    assert {named.key.pid for named in planned.to_stop} == {shared.pid, fork}
    assert {named.why for named in planned.to_stop} == {f"port:{port}"}
    told, _ = stop(planned)
    assert [is_alive(pid) for pid in (shared.pid, fork, innocent.pid)] == [False, False, True]
    assert told[shared.pid].ports == (port,)


@alone
def test_a_web_server_is_no_tensorboard_whatever_its_port_and_its_folder_are():
    server = Elsewhere(lambda: standin("listener.py", "0"))
    named = {each.key.pid for each in find(["tensorboard", "ros2", "script:tensorboard"]).named}
    assert server.pid not in named
    assert find("port:1").named == ()


@alone
def test_a_holder_that_manages_the_session_is_left():
    code = (STANDINS / "listener.py").read_text()
    manager = start(["systemd", "-c", code, "0"])
    planned = find(f"port:{manager.said[0]}")
    assert [named.spared for named in planned.named] == ["it manages the user's session"]
    stop(planned)
    assert is_alive(manager.pid)


def listener_of_uid_12345():
    server = socket.create_server(("127.0.0.1", 0))
    pid = os.fork()
    if pid == 0:
        signal.alarm(100)
        os.setresgid(12345, 12345, 12345)
        os.setresuid(12345, 12345, 12345)
        while True:
            signal.pause()
    wait_for(lambda: Procfs().uids(pid).effective == 12345)
    return SimpleNamespace(pid=pid, said=[str(server.getsockname()[1])])


@alone
def test_a_holder_of_another_user_is_named_and_no_more():
    if os.geteuid() != 0:
        skip("to become another user takes root")
    theirs = Elsewhere(listener_of_uid_12345)
    planned = find(f"port:{theirs.said[0]}")
    assert planned.to_stop == ()
    assert f"(pid {theirs.pid}): it belongs to uid 12345" in planned.notes[0]
    _, lines = stop(planned)
    assert lines == list(planned.lines)
    assert is_alive(theirs.pid)


@alone
def test_what_is_above_this_process_is_never_stopped():
    name = write_script(
        code="""
import os, signal, sys
signal.alarm(100)
from pytest_gpuclean.processes.host_wide import carry_out, plan
from pytest_gpuclean.processes.selectors import parse_selectors
import subprocess
if len(sys.argv) > 1:
    planned = plan(parse_selectors("script:" + os.path.basename(__file__), "x"), folders=[])
    carry_out(planned, tell=print, settle_seconds=5, folders=[])
else:
    done = subprocess.run([sys.executable, __file__, "inner"], capture_output=True, text=True)
    print("ready", done.returncode, flush=True)
    print(done.stdout, done.stderr, flush=True)
"""
    )
    script = start_child(["python", name])
    assert script.said == ["0"]
    rest = script.stdout.read()
    assert f"leaves python {name[:20]}" in rest
    assert rest.count("this very run is below it") == 2, "the inner one is the run itself"
    assert script.wait() == 0


RUNS_SCRIPT = """
script = until_ready(subprocess.Popen([sys.executable, os.environ["NAME"]], stdout=subprocess.PIPE, text=True))
bare = until_ready(subprocess.Popen([sys.executable, os.environ["NAME"]], stdout=subprocess.PIPE, text=True, env=bare))
ready(script.pid, bare.pid)
"""


@alone
def test_what_belongs_to_a_run_that_is_alive_is_left_and_told():
    name = write_script()
    living = Elsewhere(lambda: Victim(RUNS_SCRIPT, environ={"NAME": name}).process)
    planned = find(f"script:{name}")
    assert planned.to_stop == ()
    assert {named.key.pid for named in planned.named} == set(living.said)
    assert all("a run that is alive: " in line and f"(pid {living.pid})" in line for line in planned.lines)
    _, lines = stop(planned)
    assert lines == list(planned.lines)
    assert [is_alive(pid) for pid in living.said] == [True, True]
    end(living.pid)
    told, _ = stop(find(f"script:{name}"))
    assert set(told) == set(living.said)
    assert not any(is_alive(pid) for pid in living.said)


@alone
def test_what_has_a_living_run_below_it_is_left():
    name = write_script(
        code=f"""
import os, signal, sys
os.chdir({os.getcwd()!r})
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from processes.victims import Victim
signal.alarm(100)
inner = Victim("ready()")
print("ready", inner.pid, flush=True)
signal.pause()
"""
    )
    script = start(["python", name])
    inner = script.said[0]
    planned = find(f"script:{name}")
    assert [named.spared.partition(":")[0] for named in planned.named] == ["a run that is alive is below it"]
    stop(planned)
    assert (is_alive(script.pid), is_alive(inner)) == (True, True)
    end(inner)


@alone
def test_where_other_runs_cannot_be_known_what_bears_a_cookie_is_left():
    name = write_script()
    marked = start(["python", name], env={**os.environ, "GPUCLEAN_RUN": "0123456789abcdef"})
    plain = start(["python", name])
    Path(FOLDER).mkdir(mode=0o700)
    Path(FOLDER).chmod(0o777)
    planned = find(f"script:{name}")
    assert [named.key.pid for named in planned.to_stop] == [plain.pid]
    stop(planned)
    assert (is_alive(marked.pid), is_alive(plain.pid)) == (True, False)


@alone
def test_what_is_this_runs_own_is_its_own_business():
    name = write_script()
    before = start_child(["python", name], start_new_session=True)
    outer, _ = begin_run(folders=[os.path.abspath(FOLDER)], subreaper=False)
    orphan = start(["python", name])  # of the outer run in this very process
    run, _ = begin_run(folders=[os.path.abspath(FOLDER)], subreaper=False)
    child = start_child(["python", name])
    assert find(f"script:{name}", run.claim).lines == (), "a child, and one from before, are below this process"
    assert [is_alive(pid) for pid in (before.pid, orphan.pid, child.pid)] == [True, True, True]


@alone
def test_another_namespace_is_not_reached():
    name = write_script()
    command = ["unshare", "--pid", "--fork", "--kill-child", sys.executable, name]
    if subprocess.run([*command[:4], "true"], capture_output=True).returncode:
        skip("no namespaces are to be had here")
    Elsewhere(lambda: until_ready(subprocess.Popen(command, stdout=subprocess.PIPE, text=True)))
    argvs = [Procfs().argv(pid) for pid in Procfs().pids()]
    assert (sys.executable, name) in argvs, "it can be seen from here"
    assert find(f"script:{name}").named == ()


@alone
def test_a_launch_is_stopped_with_its_nodes():
    launch = Elsewhere(lambda: standin("ros2", "launch", "demo", "demo.launch.py"))
    pids = {launch.pid, *launch.said}
    planned = find("ros2")
    mine = replace(planned, named=tuple(named for named in planned.named if named.key.pid in pids), notes=())
    assert {named.key.pid for named in mine.to_stop} == pids
    told, _ = stop(mine)
    assert {left.ended_by for left in told.values()} == {"SIGINT"}
    assert not any(map(is_alive, pids))


@alone
def test_a_process_file_system_that_shows_somebody_else_stops_nothing():
    Path("proc").mkdir()
    planned = plan(parse_selectors("tensorboard", "x"), procfs=Procfs(os.path.abspath("proc")), folders=[])
    assert planned.named == ()
    assert "nothing is stopped" in planned.notes[0]
