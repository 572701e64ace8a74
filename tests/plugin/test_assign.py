"""`--gpu-assign`: one visible GPU for each worker of pytest-xdist."""

import json
from pathlib import Path

import pytest

pytest.importorskip("xdist")

VARIABLES = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "ZE_AFFINITY_MASK")
ROUND_ROBIN = "--gpu-assign=round-robin"


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch):
    for name in (*VARIABLES, "CUDA_DEVICE_ORDER", "PYTEST_XDIST_AUTO_NUM_WORKERS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def machine(suite):
    """An inner suite on a machine with such cards; each process writes down what it sees when its conftest comes up."""
    source = Path(__file__).with_name("fakecards.py").read_text(encoding="utf-8")
    suite.pytester.makepyfile(fakecards=source)

    def build(cards, more=""):
        suite.pytester.makeconftest(f"""
            import json, os
            from pathlib import Path

            HERE = Path(__file__).parent
            NAME = os.environ.get("PYTEST_XDIST_WORKER", "main")
            SEEN = {{name: os.environ[name] for name in {VARIABLES} if name in os.environ}}
            (HERE / (NAME + ".seen")).write_text(json.dumps(SEEN))

            from fakecards import NVML, FakeNvml
            from fakegpu import pytest_gpuclean_probes

            import pytest

            @pytest.hookimpl(tryfirst=True)
            def pytest_cmdline_main(config):  # `-n auto` is read before pytest_configure
                config.stash[NVML] = FakeNvml({cards})

            {more}
        """)
        suite.write("""
            import os, time

            @pytest.mark.parametrize("number", range(6))
            def test_it(number):
                time.sleep(0.05)
        """)
        return suite

    return build


def seen(suite, variable="CUDA_VISIBLE_DEVICES"):
    """What each process saw."""
    files = sorted(suite.pytester.path.glob("*.seen"))
    return {file.stem: json.loads(file.read_text()).get(variable) for file in files}


def told(result):
    return [line.removeprefix("gpuclean: --gpu-assign: ") for line in result.outlines if "--gpu-assign: " in line]


def test_each_worker_sees_one_card_before_its_conftest_is_imported(machine):
    suite = machine("24, 24")
    result = suite.run_apart("-p", "xdist", "-n2", ROUND_ROBIN)
    result.assert_outcomes(passed=6)
    assert seen(suite) == {"main": None, "gw0": "0", "gw1": "1"}
    assert told(result) == ["gw0 on GPU 0 (Fake 24, 24.0 GiB); gw1 on GPU 1 (Fake 24, 24.0 GiB)"]


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        ("2,3", {"gw0": "2", "gw1": "3"}),
        ("3,0,1", {"gw0": "3", "gw1": "0"}),
        ("GPU-00000003,GPU-00000001-fake", {"gw0": "GPU-00000003", "gw1": "GPU-00000001-fake"}),
        ("1", {"gw0": "1", "gw1": "1"}),
        ("1,9", {"gw0": "1", "gw1": "1"}),
    ],
)
def test_it_counts_within_what_the_caller_has_made_visible(machine, monkeypatch, visible, expected):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    suite = machine("24, 24, 24, 24")
    suite.run_apart("-p", "xdist", "-n2", ROUND_ROBIN).assert_outcomes(passed=6)
    assert seen(suite) == {"main": visible, **expected}


def test_more_workers_than_cards_share_them_and_that_is_told(machine):
    suite = machine("24, 12")
    result = suite.run_apart("-p", "xdist", "-n3", ROUND_ROBIN)
    assert {*seen(suite).values()} == {None, "GPU-00000000-fake", "GPU-00000001-fake"}  # they differ: by UUID
    first, second = told(result)
    assert (
        first
        == "gw0, gw2 on GPU GPU-00000000-fake (Fake 24, 24.0 GiB); gw1 on GPU GPU-00000001-fake (Fake 12, 12.0 GiB)"
    )
    assert second == "3 workers share 2 GPUs and their memory"


def test_a_worker_in_the_place_of_a_dead_one_gets_the_same_card(machine):
    suite = machine("24, 24, 24")
    suite.write("""
        import os

        @pytest.mark.parametrize("number", range(8))
        def test_it(number):
            if os.environ["CUDA_VISIBLE_DEVICES"] == "1" and not os.path.exists("died"):
                open("died", "w").close()
                os._exit(1)
    """)
    suite.run_apart("-p", "xdist", "-n2", ROUND_ROBIN).assert_outcomes(passed=7, failed=1)
    assert seen(suite) == {"main": None, "gw0": "0", "gw1": "1", "gw2": "1"}


@pytest.mark.parametrize("workers", [[], ["-p", "xdist", "-n0"]], ids=["none", "n0"])
def test_without_workers_nothing_is_assigned(machine, workers):
    suite = machine("24, 24")
    result = suite.run_apart(ROUND_ROBIN, *workers)
    result.assert_outcomes(passed=6)
    assert seen(suite) == {"main": None}
    assert told(result) == []


def test_off_is_the_default(machine):
    suite = machine("24, 24")
    result = suite.run_apart("-p", "xdist", "-n2", "--gpu-clean=quick")
    assert seen(suite) == {"main": None, "gw0": None, "gw1": None}
    assert told(result) == []


def test_it_may_be_said_in_the_ini_file(machine):
    suite = machine("24, 24")
    suite.ini("gpu_assign = round-robin")
    suite.run_apart("-p", "xdist", "-n2")
    assert seen(suite) == {"main": None, "gw0": "0", "gw1": "1"}


def test_it_holds_where_cleaning_is_off(machine):
    suite = machine("24, 24")
    suite.run_apart("-p", "xdist", "-n2", ROUND_ROBIN, "--gpu-clean=off").assert_outcomes(passed=6)
    assert seen(suite) == {"main": None, "gw0": "0", "gw1": "1"}


@pytest.mark.parametrize(
    ("visible", "cards", "line"),
    [
        (None, "", "no GPU to hand out: there is no GPU here"),
        ("", "24", "no GPU to hand out: CUDA_VISIBLE_DEVICES='' shows none"),
        ("-1", "24", "no GPU to hand out: CUDA_VISIBLE_DEVICES='-1' shows none"),
        ("0,0", "24", "no GPU to hand out: CUDA_VISIBLE_DEVICES='0,0': '0' names a card twice, and so CUDA sees none"),
        (None, "reason='there is no driver'", "no GPU to hand out: there is no driver"),
    ],
)
def test_with_no_card_to_hand_out_the_tests_run_and_that_is_told(machine, monkeypatch, visible, cards, line):
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    suite = machine(cards)
    result = suite.run_apart("-p", "xdist", "-n2", ROUND_ROBIN)
    result.assert_outcomes(passed=6)
    assert told(result) == [line]
    assert seen(suite) == {"main": visible, "gw0": visible, "gw1": visible}


def test_a_wrong_entry_is_named_beside_what_was_handed_out(machine, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,7")
    result = machine("24").run_apart("-p", "xdist", "-n1", ROUND_ROBIN)
    assert told(result)[1] == "CUDA_VISIBLE_DEVICES='0,7': '7' is no card here: there is 1"


def test_amds_variable_is_used_where_the_caller_has_set_it(machine, monkeypatch):
    monkeypatch.setenv("HIP_VISIBLE_DEVICES", "4,6")
    suite = machine("reason='there is no driver'")
    suite.run_apart("-p", "xdist", "-n2", ROUND_ROBIN)
    assert seen(suite, "HIP_VISIBLE_DEVICES") == {"main": "4,6", "gw0": "4", "gw1": "6"}
    assert seen(suite) == {"main": None, "gw0": None, "gw1": None}


def test_a_workers_own_variable_is_left_alone(machine):
    suite = machine("24, 24, 24")
    tx = ["--tx", "popen//env:CUDA_VISIBLE_DEVICES=2", "--tx", "popen", "--tx", "popen"]
    result = suite.run_apart("-p", "xdist", "--dist=load", *tx, ROUND_ROBIN)
    assert seen(suite) == {"main": None, "gw0": "2", "gw1": "0", "gw2": "1"}
    assert told(result)[-1] == "gw0 left as its own --tx says"


def test_a_worker_that_runs_elsewhere_is_left_alone(machine):
    suite = machine("24, 24")
    far = ["--px", "id=far//popen", "--tx", "popen//via=far", "--tx", "popen"]
    result = suite.run_apart("-p", "xdist", "--dist=load", *far, ROUND_ROBIN)
    assert seen(suite) == {"main": None, "gw0": None, "gw1": "0"}
    assert told(result)[-1] == "gw0 left as it is, for it runs elsewhere"


def test_a_leak_says_on_which_card_it_is(machine):
    suite = machine("24, 24")
    suite.write("""
        import os

        @pytest.mark.parametrize("number", range(6))
        def test_it(number):
            if os.environ["CUDA_VISIBLE_DEVICES"] == "1" and not KEPT:
                KEPT.append(allocate(4 * MiB))
    """)
    result = suite.run_apart("-p", "xdist", "-n2", ROUND_ROBIN, "--gpu-leak=fail")
    result.stdout.fnmatch_lines(["LEAK *: leaked 4.0 MiB on fake:0 (threshold 1.0 MiB), where that is GPU 1"])


def test_quiet_is_quiet(machine):
    assert told(machine("24").run_apart("-p", "xdist", "-n1", "-q", ROUND_ROBIN)) == []


# -- how many workers -------------------------------------------------------------------------------------------------


def workers(suite):
    return len(seen(suite)) - 1


PROCESSORS = """
            os.sched_getaffinity = lambda pid: range({count})
            os.cpu_count = lambda: {count}
"""


@pytest.mark.parametrize(("visible", "count"), [(None, 4), ("1,2", 2), ("3", 1)])
def test_auto_is_one_worker_for_each_visible_card(machine, monkeypatch, visible, count):
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    suite = machine("24, 24, 24, 24", more=PROCESSORS.format(count=64))
    result = suite.run_apart("-p", "xdist", "-nauto", ROUND_ROBIN)
    assert workers(suite) == count
    assert told(result)[1] == "-n auto is one worker for each visible GPU; more of them would share its memory"


def test_auto_is_never_more_than_the_processors(machine):
    suite = machine("24, 24, 24, 24", more=PROCESSORS.format(count=2))
    suite.run_apart("-p", "xdist", "-nauto", ROUND_ROBIN).assert_outcomes(passed=6)
    assert workers(suite) == 2


@pytest.mark.parametrize(
    ("cards", "option"), [("24, 24", "--gpu-assign=off"), ("24, 24", "--gpu-clean=quick"), ("", ROUND_ROBIN)]
)
def test_elsewhere_auto_is_what_xdist_says(machine, cards, option):
    suite = machine(
        cards,
        more="""
            import psutil
            psutil.cpu_count = lambda logical=True: 3
    """,
    )
    suite.run_apart("-p", "xdist", "-nauto", option)
    assert workers(suite) == 3


def test_a_hook_of_the_users_own_says_it_before_us(machine):
    suite = machine(
        "24, 24",
        more="""
            def pytest_xdist_auto_num_workers(config):
                return 3
    """,
    )
    suite.run_apart("-p", "xdist", "-nauto", ROUND_ROBIN)
    assert workers(suite) == 3


def test_the_environment_variable_says_it_before_us(machine, monkeypatch):
    monkeypatch.setenv("PYTEST_XDIST_AUTO_NUM_WORKERS", "1")
    suite = machine("24, 24")
    suite.run_apart("-p", "xdist", "-nauto", ROUND_ROBIN)
    assert workers(suite) == 1


def test_a_value_that_is_none_is_refused_by_name(suite):
    suite.write("def test_it():\n    print('RAN')\n")
    result = suite.run_apart("-p", "xdist", "-nauto", "--gpu-assign=random", "-s")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    text = result.stdout.str() + result.stderr.str()
    assert "--gpu-assign: 'random' is not one of off, round-robin" in text
    assert "Traceback" not in text
