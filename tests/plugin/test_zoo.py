"""The zoo: realistic test files, run whole, in every way that people run tests. Right tests are flagged, no others."""

import ast
import dataclasses
import functools
import json
import os
import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import simgpu

from pytest_gpuclean.units import MiB, parse_size

ZOO = Path(__file__).parents[1] / "zoo"
RUN_SECONDS = 1800
HEADLINE = "gpuclean: "
WHOLE_RUN = "gpuclean: the whole run leaked "
NUMBER = re.compile(r"\d+(?=[\]'])|(?<=Thread-)\d+")
"""Places in a list and numbers of threads, which depend on the order: `N` in `HELD`."""
LEAKED = re.compile(r"leaked (\d+\.\d [KM]iB) on ")
HOST_TOLERANCE_BYTES = 200 * 1024
SHUFFLED_TOLERANCE = 0.1
"""What else came and went in a window is in a count of all arrays in host memory, and shuffled that is more: what
a cache has grown by in small steps is seen at one of them."""
INTERLEAVED_TOLERANCE_BYTES = 1 * MiB
"""Where modules are split up too, that may be a step of another module's drift: each is below the threshold."""

EACH = ("--gpu-leak=fail", "--gpu-settle=10", "--gpu-leak-explain=1000")
QUICK = ("--gpu-clean=quick", *EACH)
COMPREHENSIVE = ("--gpu-clean=comprehensive", *EACH)


@dataclasses.dataclass(frozen=True)
class Mode:
    """One way to run tests."""

    options: tuple[str, ...]
    needs: str | None = None
    """The module of the plugin that it takes."""
    names_holders: bool = False
    """Whether who holds it is checked: on a device, memory that came in small steps may be taken for its like."""
    is_shuffled: bool = False
    interleaves: bool = False
    """Whether the tests of a module may be split up: what stays below a threshold then adds up elsewhere."""
    reruns: int = 0


MODES = {
    "serial": Mode(QUICK, names_holders=True),
    "serial-comprehensive": Mode(COMPREHENSIVE),
    "gate-alone": Mode(EACH),
    "two-workers": Mode((*QUICK, "-p", "xdist", "-n", "2"), "xdist", interleaves=True),
    "two-workers-by-file": Mode((*COMPREHENSIVE, "-p", "xdist", "-n", "2", "--dist", "loadfile"), "xdist"),
    "shuffled": Mode((*QUICK, "-p", "randomly", "--randomly-seed={seed}"), "pytest_randomly", is_shuffled=True),
    "shuffled-across-modules": Mode(
        (*QUICK, "-p", "random_order", "--random-order-bucket=global", "--random-order-seed={seed}"),
        "random_order",
        is_shuffled=True,
        interleaves=True,
    ),
    "reruns": Mode((*QUICK, "-p", "rerunfailures", "--reruns", "1"), "pytest_rerunfailures", reruns=1),
}


ALWAYS = {
    ("simgpu", "serial"),
    ("simgpu", "two-workers"),
    ("simgpu", "shuffled-across-modules"),
    ("simgpu", "reruns"),
}
"""What runs without being asked for; `GPUCLEAN_ZOO=all` (tox -e zoo) runs every mode on both devices."""


@dataclasses.dataclass
class Told:
    """What a run said about one test."""

    outcomes: list[tuple[str, str, bool]] = dataclasses.field(default_factory=list)
    """Of its setup and its calls: the phase, the outcome, and whether it was expected to fail."""
    failures: list[str] = dataclasses.field(default_factory=list)
    """Where each failure of its own was raised, and of which type."""
    headlines: list[str] = dataclasses.field(default_factory=list)
    text: str = ""
    has_teardown_error: bool = False


# -- running ------------------------------------------------------------------------------------------------------


def run_zoo(device: str, folder: str, options: tuple[str, ...]) -> dict[str, Told]:
    """Run a folder of the zoo in a process of its own."""
    with tempfile.TemporaryDirectory() as scratch:
        record = Path(scratch) / "record.json"
        environment = {
            **os.environ,
            "GPUCLEAN_ZOO_DEVICE": device,
            "GPUCLEAN_ZOO_RECORD": str(record),
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "PYTEST_ADDOPTS": "",
        }
        environment.pop("PYTEST_XDIST_WORKER", None)
        command = [sys.executable, "-m", "pytest", "-c", str(ZOO / "pytest.ini"), "--basetemp", f"{scratch}/tmp"]
        command += ["-p", "gpuclean", "-q", *options, *(str(ZOO / name) for name in folder.split())]
        done = subprocess.run(
            command, cwd=ZOO, env=environment, capture_output=True, text=True, timeout=RUN_SECONDS, check=False
        )
        if done.returncode not in (0, 1) or not record.exists():
            pytest.fail(
                f"{' '.join(command)}\nended with {done.returncode}\n{done.stdout[-6000:]}\n{done.stderr[-3000:]}"
            )
        print(done.stdout[-3000:])
        return gather(map(json.loads, record.read_text(encoding="utf-8").splitlines()))


def gather(reports: Iterable[dict[str, Any]]) -> dict[str, Told]:
    told: dict[str, Told] = defaultdict(Told)
    for report in reports:
        test = told[report["nodeid"]]
        if report["outcome"] == "rerun":
            test.outcomes, test.failures = [], []  # the attempt after it counts
            continue
        # A worker's report begins with a line of its own. Beside an error of the teardown, leaks are in a section.
        is_leak = report["when"] == "teardown" and f"\n{HEADLINE}" in f"\n{report['text']}"
        if report["when"] != "teardown":
            test.outcomes.append((report["when"], report["outcome"], report["xfail"]))
        elif report["outcome"] == "failed":
            test.has_teardown_error = True
        if report["outcome"] == "failed" and not is_leak:
            test.failures.append(f"{report['when']}: {report['crash']}")
        if report["when"] == "teardown":
            test.text = "\n".join(filter(None, (report["text"] if is_leak else "", report["told"])))
            test.headlines = [line for line in test.text.splitlines() if line.startswith(HEADLINE)]
    return dict(told)


@functools.cache
def baseline(device: str, reruns: int) -> dict[str, Told]:
    """What comes of the tests where the plugin is off."""
    again = ("-p", "rerunfailures", "--reruns", str(reruns)) if reruns else ()
    return run_zoo(device, "clean flagged", ("--gpu-clean=off", *again))


# -- what is expected ---------------------------------------------------------------------------------------------


@functools.cache
def declared(file: str) -> dict[str, Any]:
    """Read what a file declares, without importing it."""
    tree = ast.parse((ZOO / file).read_text(encoding="utf-8"))
    found = {}
    for statement in tree.body:
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            name = statement.targets[0].id
            if name.startswith(("FLAGGED", "HELD")):
                found[name] = ast.literal_eval(statement.value)
    return found


def texts_of(kind: str, nodeid: str) -> list[str]:
    file, _, name = nodeid.partition("::")
    texts = declared(file).get(kind, {}).get(name, [])
    return [texts] if isinstance(texts, str) else texts


def mismatches(found: Mapping[str, Told], plain: Mapping[str, Told], mode: Mode) -> Iterator[str]:
    """Say, one line each, in what a run differs from what the files declare."""
    for nodeid in sorted(plain.keys() ^ found.keys()):
        yield f"{nodeid}: {'ran only with' if nodeid in found else 'did not run with'} the plugin"
    for nodeid in found.keys() & plain.keys():
        told, before = found[nodeid], plain[nodeid]
        if told.outcomes != before.outcomes:
            yield f"{nodeid}: came out as {told.outcomes}, without the plugin as {before.outcomes}"
        if told.failures != before.failures:
            yield f"{nodeid}: failed with {told.failures}, without the plugin with {before.failures}"
    files = {nodeid.partition("::")[0] for nodeid in found}
    for nodeid in sorted(found):
        yield from mismatches_of(nodeid, found[nodeid], mode)
    adds_up = mode.interleaves and any(
        line.startswith(WHOLE_RUN) and " on cpu (" in line for told in found.values() for line in told.headlines
    )
    for file in sorted(files):
        names = {nodeid.partition("::")[2] for nodeid in found if nodeid.startswith(f"{file}::")}
        for name in declared(file).get("FLAGGED", {}).keys() - names:
            yield f"{file}: declares {name}, which did not run"
        said = [
            line for nodeid, told in found.items() if nodeid.startswith(f"{file}::") for line in told.text.splitlines()
        ]
        for text in declared(file).get("FLAGGED_SOMEWHERE", ()):
            if not says(said, text, mode) and not (adds_up and text.startswith("module ")):
                yield f"{file}: nothing says {text!r}"


def says(told: Iterable[str], text: str, mode: Mode) -> bool:
    """Whether one of the lines says it; in host memory, the figure may be a little off."""
    wanted = LEAKED.search(text)
    wanted_bytes = parse_size(wanted[1], text) if wanted else 0
    off_bytes = HOST_TOLERANCE_BYTES if wanted_bytes >= MiB else 0
    if mode.is_shuffled:
        off_bytes = max(off_bytes, wanted_bytes * SHUFFLED_TOLERANCE)
    if mode.is_shuffled and mode.interleaves:
        off_bytes = max(off_bytes, INTERLEAVED_TOLERANCE_BYTES)
    for line in told:
        if text in line:
            return True
        figure = LEAKED.search(line)
        if wanted and figure and " on cpu (" in line:
            around = text[: wanted.start()] in line and text[wanted.end() :] in line
            if around and abs(parse_size(figure[1], line) - wanted_bytes) <= off_bytes:
                return True
    return False


def mismatches_of(nodeid: str, told: Told, mode: Mode) -> Iterator[str]:
    expected = texts_of("FLAGGED", nodeid)
    anywhere = declared(nodeid.partition("::")[0]).get("FLAGGED_SOMEWHERE", set())
    for text in expected:
        if not says(told.text.splitlines(), text, mode):
            said = told.headlines or "nothing"
            yield f"{nodeid}: does not say {text!r}, but {said}"
    if expected and not told.has_teardown_error:
        yield f"{nodeid}: has no error at its teardown"
    holders = texts_of("HELD", nodeid)
    text = NUMBER.sub("N", told.text)
    if mode.names_holders and holders and told.headlines and not any(f"held by {name}" in text for name in holders):
        who = [line.strip() for line in told.text.splitlines() if line.startswith("  held by ")]
        yield f"{nodeid}: is not told as held by {' or '.join(holders)}, but {who or 'nothing'}"
    for line in told.headlines:
        if any(says([line], text, mode) for text in (*expected, *anywhere)):
            continue
        if mode.interleaves and line.startswith(WHOLE_RUN):
            continue
        yield f"{nodeid}: must not say {line!r}"


# -- the runs -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["simgpu", "cpu"])
def device(request: pytest.FixtureRequest) -> str:
    if find_spec("torch") is None:
        pytest.skip("torch is not installed")
    if request.param == "simgpu" and (reason := simgpu.unavailable_reason()):
        pytest.skip(f"no simulated accelerator: {reason}")
    return request.param


@pytest.mark.parametrize("name", MODES)
def test_flags_the_tests_that_leak_and_no_others(device: str, name: str) -> None:
    mode = MODES[name]
    if (device, name) not in ALWAYS and os.environ.get("GPUCLEAN_ZOO") != "all":
        pytest.skip("runs with GPUCLEAN_ZOO=all, as in tox -e zoo")
    if mode.needs and find_spec(mode.needs) is None:
        pytest.skip(f"{mode.needs} is not installed")
    # The same order each time in the runs that everybody waits for; a new one in tox -e zoo.
    seed = str(int.from_bytes(os.urandom(2), "little")) if os.environ.get("GPUCLEAN_ZOO") == "all" else "36820"
    print(f"{name} on {device}, seed {os.environ.get('GPUCLEAN_ZOO_SEED', seed)}")
    options = tuple(part.format(seed=os.environ.get("GPUCLEAN_ZOO_SEED", seed)) for part in mode.options)
    wrong = list(mismatches(run_zoo(device, "clean flagged", options), baseline(device, mode.reruns), mode))
    assert not wrong, f"{len(wrong)} mismatches, {' '.join(options)} on {device}:\n" + "\n".join(wrong)


def test_flags_what_outlives_the_run_at_its_last_test(device: str) -> None:
    found = run_zoo(device, "session", QUICK)
    said = "\n".join(told.text for told in found.values())
    last = list(found)[-1]
    expected = {text for file in ZOO.glob("session/test_*.py") for text in declared_in_the_end(file)}
    assert not {text for text in expected if not says(found[last].text.splitlines(), text, MODES["serial"])}, said
    assert not [nodeid for nodeid, told in found.items() if told.headlines and nodeid != last], said


def declared_in_the_end(file: Path) -> set[str]:
    texts: set[str] = declared(str(file.relative_to(ZOO)))["FLAGGED_IN_THE_END"]
    return texts


def test_the_reader_of_a_run_sees_what_is_missing_and_what_is_too_much() -> None:
    leak = Told(text="gpuclean: leaked 1.0 MiB on cpu", headlines=["gpuclean: leaked 1.0 MiB on cpu"])
    nodeid = "flagged/test_freed_later.py::test_frees"
    assert list(mismatches_of(nodeid, leak, MODES["serial"])) == [f"{nodeid}: must not say {leak.headlines[0]!r}"]
    missing = list(mismatches_of("flagged/test_freed_later.py::test_leaks", Told(), MODES["serial"]))
    assert len(missing) == 2
