"""Raw reads of /proc: odd names, and processes that are gone."""

import os

from pytest_gpuclean.processes.procfs import Procfs, Uids, value_in
from unit.processes.fakeproc import FakeProc


def test_a_name_may_hold_anything(tmp_path):
    proc = FakeProc(tmp_path)
    for name in (b"python", b"a b", b") R 1 1 (", b"(sd-pam)", b"\xff\n)", b""):
        stat = proc.add(10, name=name, parent=7, start=123, state="Z", threads=3)
        assert (stat.parent_pid, stat.start_ticks, stat.state, stat.threads) == (7, 123, "Z", 3)
        assert stat.name == name.decode(errors="replace")
        assert proc.start_ticks(10) == 123


def test_a_process_that_is_gone_gives_none(tmp_path):
    proc = FakeProc(tmp_path)
    reads = (
        proc.stat, proc.start_ticks, proc.uids, proc.signals, proc.environ, proc.argv, proc.executable,
        proc.pid_namespace, proc.net_namespace, proc.children, proc.listeners,
    )  # fmt: skip
    assert [read(10) for read in reads] == [None] * len(reads)
    assert proc.environ_value(10, "X") is None
    assert (proc.file_of(10, 3), proc.flags_of(10, 3)) == (None, None)
    assert (list(proc.descriptors(10)), proc.thread_ids(10), proc.thread_states(10)) == ([], [], "")


def test_a_process_that_ends_while_it_is_read_gives_none(tmp_path):
    proc = FakeProc(tmp_path)
    proc.add(10)
    (tmp_path / "10/stat").write_bytes(b"")
    assert (proc.stat(10), proc.start_ticks(10)) == (None, None)
    (tmp_path / "10/stat").write_bytes(b"10 (x) S 1")
    assert (proc.stat(10), proc.start_ticks(10)) == (None, None)


def test_the_state_of_each_thread_is_told(tmp_path):
    proc = FakeProc(tmp_path)
    for thread_id, stat in enumerate((b"10 (x) S 1 1", b"11 () R 1 () T 1", b"12 (\xff\n) D 1", b""), start=10):
        (tmp_path / f"10/task/{thread_id}").mkdir(parents=True)
        (tmp_path / f"10/task/{thread_id}/stat").write_bytes(stat)
    assert sorted(proc.thread_states(10)) == ["D", "S", "T"]


def test_what_may_not_be_read_gives_none(tmp_path):
    proc = FakeProc(tmp_path)
    proc.add(10)
    (tmp_path / "10/environ").unlink()
    (tmp_path / "10/environ").mkdir()  # opens, and cannot be read: as with EPERM, also for root
    assert proc.environ(10) is None


def test_a_folder_that_is_no_proc_shows_nothing(tmp_path):
    proc = Procfs(str(tmp_path / "none"))
    assert proc.pids() == []
    assert not proc.shows(os.getpid())
    assert proc.boot_id() == ""


def test_a_proc_of_another_namespace_is_told_by_the_own_number(tmp_path):
    proc = FakeProc(tmp_path)
    proc.own(4711)
    assert proc.shows(4711)
    assert not proc.shows(2)


def test_only_numbers_are_processes(tmp_path):
    proc = FakeProc(tmp_path)
    proc.add(10)
    proc.add(2)
    (tmp_path / "self").mkdir()
    assert sorted(proc.pids()) == [2, 10]


def test_a_command_line_keeps_empty_arguments(tmp_path):
    proc = FakeProc(tmp_path)
    proc.add(10, argv=b"python\0-c\0\0x y\0")
    assert proc.argv(10) == ("python", "-c", "", "x y")
    proc.add(10, argv=b"")
    assert proc.argv(10) == ()
    proc.add(10, argv=b"postgres: idle\0\0\0\0")
    assert proc.argv(10) == ("postgres: idle",)


def test_a_variable_is_found_by_its_whole_name(tmp_path):
    proc = FakeProc(tmp_path)
    proc.add(10, environ=b"XRUN=1\0NOTE=RUN=2\0RUN=3\0RUN2=4\0")
    assert proc.environ_value(10, "RUN") == "3"
    assert proc.environ_value(10, "RU") is None
    assert value_in(b"RUN=\0", "RUN") == ""


def test_the_real_and_the_effective_user_differ_in_a_setuid_program(tmp_path):
    proc = FakeProc(tmp_path)
    proc.add(10, uid=(1000, 0))
    assert proc.uids(10) == Uids(1000, 0)


def test_an_ignored_signal_is_told(tmp_path):
    proc = FakeProc(tmp_path)
    proc.add(10, ignored=1 << 14)
    assert proc.signals(10).ignores(15)
    assert not proc.signals(10).ignores(2)


def test_children_of_all_threads_are_listed(tmp_path):
    proc = FakeProc(tmp_path)
    proc.add(10, children=[11, 12])
    second = tmp_path / "10/task/99"
    second.mkdir()
    (second / "children").write_text("13 ")
    assert sorted(proc.children(10)) == [11, 12, 13]
    assert proc.children(10, threads=1) == [11, 12]


def test_a_kernel_that_lists_no_children_is_not_one_without(tmp_path):
    proc = FakeProc(tmp_path)
    proc.add(10)
    assert proc.children(10) is None
    proc.add(11, children=[])
    assert proc.children(11) == []


def test_only_sockets_that_listen_are_listeners(tmp_path):
    proc = FakeProc(tmp_path)
    proc.add(10)
    proc.listen(10, (6006, 77, "0A"), (6007, 78, "01"))
    proc.listen(10, (6008, 79, "0A"), version="6")
    assert proc.listeners(10) == [(6006, 77), (6008, 79)]


def test_the_real_one_shows_this_process():
    proc = Procfs()
    if not os.path.exists("/proc/self/stat"):
        return
    assert proc.shows(os.getpid())
    assert proc.stat(os.getpid()).parent_pid == os.getppid()
    assert os.getpid() in proc.pids()
    assert proc.uids(os.getpid()) == Uids(os.getuid(), os.geteuid())


def test_a_process_on_its_way_out_is_ending_and_one_that_has_lost_its_main_thread_is_not(tmp_path):
    proc = FakeProc(tmp_path)
    exiting = 0x40804C
    proc.add(10, flags=0x400040)
    proc.add(11, flags=exiting, state="R")
    proc.add(12, flags=exiting, state="Z")
    proc.add(13, flags=exiting, state="Z", threads=2)
    assert [proc.is_ending(pid) for pid in (10, 11, 12, 13, 14)] == [False, True, True, False, True]
