"""What a run with a fault has to be beside the same run without it, and without the plugin."""

import json
import re
from pathlib import Path

import psutil

from .seams import Fault

SILENT = (
    "leaks/",  # told with the leak itself
    "memory/descriptors.py",
    "memory/host.py",
    "memory/residue.py",
    "memory/shared_memory.py",
    "memory/sites.py",
    "plugin/internals.py skip_at_item",  # the skip has another line as its place
    "plugin/outcome.py _failure_text",
    "processes/procfs.py",
    "processes/run_record.py _record",
    "processes/run_record.py <genexpr>",  # a ledger that cannot be read proves nothing
    "processes/discovery.py has_children",  # where the system does not say that there is no child, there may be one
    "processes/identity.py",
    "processes/device_locks.py end_wait",
    "processes/device_locks.py close",  # a lock goes with its file
    "processes/device_locks.py lock_folder",  # the next one is as good
    "processes/families/",  # one that cannot look is passed over
    "processes/apart.py",  # without a thread it is done here
    *(  # at its end: a file that stays is taken away by the next run
        f"processes/ledger.py {function} "
        for function in ("close", "_publish", "_write_anew", "_append", "_is_usable", "_is_mine", "open_ledger")
    ),
    "processes/subreaper.py",  # whether orphans are adopted shows when that is asked for
    "reports/files.py _why_no_target",  # what is wrong with the place of a file shows when it is written
    "processes/listing.py",
)
"""What is read here may have gone a moment before, or makes a figure finer: no news, as long as nothing is lost.

Files, some with a function: a line would move.
"""
SILENT_AT_THE_END = ("processes/other_ledgers.py", "processes/run_folder.py", "processes/run_record.py")
"""What the last look at ledgers cannot do is done by the next run, which tells it at its begin, as this one has."""
Outcomes = dict[str, list[list[str]]]
USAGE_ERROR = 4
TEXT = "injected-fault"
"""What an injected error says."""


def defects(plain: dict, clean: dict, faulty: dict, folder: Path, fault: Fault) -> list[str]:
    """List what is wrong.

    Args:
        plain: what came of the suite without the plugin.
        clean: with it, and without a fault.
        faulty: with the fault.
        folder: where that ran.
        fault: the call that failed.
    """
    output = (folder / "output").read_text(encoding="utf-8", errors="replace")
    if not faulty["raised"]:
        return []  # not reached: what comes before it differs from run to run
    if isinstance(faulty["status"], str):
        return [f"the run {faulty['status']}"]
    if "INTERNALERROR" in output:
        return ["pytest itself failed"]
    if faulty["status"] == USAGE_ERROR and "ERROR: " in output and not faulty["outcomes"]:
        return []  # a file that cannot be written is refused before the first test
    found = []
    if "Exception ignored" in output:
        found.append("an error was left to the interpreter to print")
    told = TEXT in output + json.dumps(faulty["outcomes"]) or bool(told_lines(output) - told_lines(clean["output"]))
    # A hook that cannot say that it excuses a leak has not excused it.
    exempt = ["excused"] if "pytest_gpuclean_leak raised" in output else []
    # And what is told to hold no test back runs it, as it would run without the plugin.
    holds_none = ("hold no test back", "not held a test back", "the tests were not looked at")
    exempt += ["lacks_a_card"] if any(words in output for words in holds_none) else []
    expected, come = (
        {test: come for test, come in run["outcomes"].items() if not any(name in test for name in exempt)}
        for run in (clean, faulty)
    )
    found += changed_outcomes(plain["outcomes"], expected, come, told=told)
    may_be = [clean["status"]]
    may_be += [plain["status"]] if told else []
    may_be += [USAGE_ERROR] if re.search(r"NOT WRITTEN .*baseline\.json", output) else []
    if faulty["status"] not in may_be:
        found.append(f"exit status {faulty['status']}, not {clean['status']}")
    lost = damaged_files(folder, clean["outcomes"], output, [plain["baseline"], clean["baseline"]])
    lost += [f"process {pid} still runs, and nobody says so" for pid in left_behind(folder) if str(pid) not in output]
    if not (fault.persists and told):  # what fails from then on may keep all of it from being done
        found += lost
    silent = (*SILENT, *SILENT_AT_THE_END) if fault.nth > 1 else SILENT
    if not told and not _without_line(fault.seam).startswith(silent):
        found.append("it was told nowhere")
    return found


def _without_line(seam: str) -> str:
    return re.sub(r":\d+", "", seam, count=1)


def told_lines(output: str) -> set[str]:
    """What a run says that it could not do."""
    begins = ("not measured", "TROUBLE", "gpu_exclusive holds nobody back")
    return {line for line in output.splitlines() if line.startswith(begins) or "NOT WRITTEN" in line}


def changed_outcomes(plain: Outcomes, clean: Outcomes, faulty: Outcomes, *, told: bool) -> list[str]:
    """A test comes out as without the fault; one that the plugin fails may come out as without the plugin, if told."""
    found = []
    for test, expected in clean.items():
        come = faulty.get(test)
        if come is not None and plain_texts(come) == plain_texts(expected):
            continue
        if come is not None and verdicts(come) == verdicts(expected):
            continue
        if come is not None and told and verdicts(come) == verdicts(plain[test]):
            continue
        reasons = [text for _, outcome, text in come or () if outcome == "skipped"]
        if any("cannot be measured" in reason and TEXT in reason for reason in reasons):
            continue  # of what the test needs
        found.append(f"{test} came out as {come}, not {expected}")
    found += [f"{test} ran, which it should not" for test in faulty.keys() - clean.keys()]
    return found


def verdicts(reports: list[list[str]]) -> list[list[str]]:
    """Outcomes without the texts of the plugin's own errors."""
    return [[when, outcome, "" if "gpuclean" in text else text] for when, outcome, text in plain_texts(reports)]


def plain_texts(reports: list[list[str]]) -> list[list[str]]:
    """Outcomes without what differs from run to run, and without the place of a skip."""
    return [
        [when, outcome, re.sub(r"0x[0-9a-f]+|/tmp/[^ ']*|^\('[^']*', \d+, ", "...", text)]
        for when, outcome, text in reports
    ]


def damaged_files(folder: Path, outcomes: Outcomes, output: str, baselines: list[str]) -> list[str]:
    """Say which file is neither whole nor told as not written."""
    found = []
    for name in ("report.json", "report.html", "report.md", "junit.xml"):
        file = folder / name
        if not file.exists():
            if not any("NOT WRITTEN" in line and name in line for line in output.splitlines()):
                found.append(f"{name} is not there, and nobody says so")
        elif name == "report.json":
            found += incomplete(json.loads(file.read_text(encoding="utf-8")), outcomes)
        elif name == "report.html" and not file.read_text(encoding="utf-8").rstrip().endswith("</html>"):
            found.append(f"{name} is cut off")
    baseline = folder / "baseline.json"
    if baseline.exists() and baseline.read_text(encoding="utf-8") not in baselines:
        found.append(f"{baseline.name} is neither the old one nor the new one")
    found += [f"{file.name} was left" for file in folder.glob(".gpuclean-*")]
    return found


def incomplete(report: dict, outcomes: Outcomes) -> list[str]:
    """Say which tests a report lacks."""
    there = {entry["test"] for run in report["runs"] for entry in run["tests"]}
    lacking = [test for test in outcomes if test not in there]
    return [f"report.json lacks {', '.join(lacking)}"] if len(lacking) > 1 else []  # one may be what the fault has cost


def left_behind(folder: Path) -> list[int]:
    """Which of the processes that a suite started still run; they are ended here."""
    found = []
    file = folder / "pids"
    for line in file.read_text().split() if file.exists() else ():
        try:
            process = psutil.Process(int(line))
            if process.status() != psutil.STATUS_ZOMBIE:
                found.append(int(line))
                process.kill()
        except psutil.NoSuchProcess:
            continue
    return found
