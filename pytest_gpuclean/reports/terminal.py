"""Text for the terminal and for failures: first the fact with its figure, then the cause, then what to do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from pytest_gpuclean.model.cleanup import CleanupResult
from pytest_gpuclean.model.leaks import Leak
from pytest_gpuclean.model.processes import LeftProcess
from pytest_gpuclean.model.records import RunReport, TestRecord
from pytest_gpuclean.reports.failures import failure_lines
from pytest_gpuclean.reports.holders import explanation_lines
from pytest_gpuclean.reports.processes import describe_left
from pytest_gpuclean.units import format_seconds, format_size

_MOST_LEFT_TOLD = 10
_LEAST_TOLD_BYTES = 64 * 1024
"""Less than that is the runner's own coming and going."""
_ADVICE = {
    "test": 'clear it in a fixture, or allow it: @pytest.mark.gpu_leak(allow="why", until="YYYY-MM-DD")',
    "fixture": (
        "give it back in the fixture's teardown, or allow it on the module: "
        'pytestmark = pytest.mark.gpu_leak(allow="why")'
    ),
    "module": (
        "each test kept less than the threshold, and it adds up; find the cache that grows, or allow it: "
        'pytestmark = pytest.mark.gpu_leak(allow="why")'
    ),
    "session": "no module kept more than the threshold, and it adds up; find the cache that grows",
    "peak": "make the test smaller, or raise its limit: @pytest.mark.gpu_limit(peak=...)",
}
_CHILDREN_ADVICE = (
    "end them in the test or in a fixture's teardown, or allow it: "
    '@pytest.mark.gpu_leak(allow="why", until="YYYY-MM-DD")'
)


def leak_headline(leak: Leak) -> str:
    """The fact, in one line."""
    size, threshold = format_size(leak.leaked_bytes), format_size(leak.threshold_bytes)
    if leak.kind == "peak":
        return f"gpuclean: peak {size} on {leak.device} (limit {threshold})"
    holder = f" in {leak.children}" if leak.children else ""
    where = f"on {leak.device}{holder} (threshold {threshold})"
    if leak.kind == "fixture":
        return f"gpuclean: fixture {leak.name!r} ({leak.scope} scope) leaked {size} {where}"
    if leak.kind == "module":
        return f"gpuclean: module {leak.name} leaked {size} over {leak.tests} tests {where}"
    if leak.kind == "session":
        return f"gpuclean: {leak.name} leaked {size} over {leak.tests} tests {where}"
    return f"gpuclean: leaked {size} {where}"


def leak_text(leak: Leak, *, whole: bool = False) -> str:
    """The failure text of one leak.

    Args:
        leak: what is told.
        whole: whether to tell all that was found out; else about a dozen lines.
    """
    lines = [leak_headline(leak)]
    if leak.explanation is not None and leak.explanation.contents:
        lines += explanation_lines(leak.explanation, whole=whole)
    elif leak.kind != "peak":
        lines.append(_source_line(leak))
        lines += explanation_lines(leak.explanation, whole=whole) if leak.explanation is not None else ()
    if leak.note:
        lines.append(leak.note)
    lines.append(_CHILDREN_ADVICE if leak.children else _ADVICE[leak.kind])
    return "\n  ".join(lines)


def left_texts(test: str, left: Iterable[LeftProcess]) -> Iterator[str]:
    """The failure text of the processes that a test left, and one of those of each fixture that ended with it."""
    by_starter: dict[str, list[LeftProcess]] = {}
    for process in left:
        starter = "" if process.started_by == test else process.started_by
        by_starter.setdefault(starter, []).append(process)
    for starter, processes in by_starter.items():
        yield _left_text(starter, processes)


def _left_text(starter: str, left: Sequence[LeftProcess]) -> str:
    count = f"{len(left)} process{'es' if len(left) > 1 else ''}"
    fact = f"{starter} left {count} running".strip()
    if all(process.is_alive for process in left):
        fact = f"{count}{' of' if starter else ''} {starter} cannot be stopped".replace("  ", " ")
    lines = [f"gpuclean: {fact}"]
    for process in left[:_MOST_LEFT_TOLD]:
        lines += [f"  {describe_left(process)}", f"    {process.command}"]
    if len(left) > _MOST_LEFT_TOLD:
        lines.append(f"  and {len(left) - _MOST_LEFT_TOLD} more")
    lines.append("  end them in the test or in a fixture's teardown, or let one go on: gpu_clean.disown(pid)")
    return "\n".join(lines)


def _source_line(leak: Leak) -> str:
    if leak.source == "arrays":
        return "live tensors and arrays in host memory, after garbage collection"
    if leak.children:
        return f"still running when the test had ended, and by {leak.source} it held that memory"
    return f"still allocated in {leak.source} after garbage collection and clearing its caches"


def stage_lines(record: TestRecord) -> Iterator[str]:
    """One line a stage that did something, for `-v`."""
    for cleanup in record.cleanups:
        for step in cleanup.steps:
            if step.status == "skipped":
                continue
            freed = ", ".join(f"{device} {format_size(-size)}" for device, size in step.given_back.items())
            did = f"failed: {step.detail}" if step.status == "failed" else step.detail
            yield f"  gpuclean {step.name}: {', '.join(filter(None, (did, freed, format_seconds(step.seconds))))}"
        yield f"  gpuclean {cleanup.level} cleanup: {_before_after(cleanup)} in {format_seconds(cleanup.seconds)}"


def _before_after(cleanup: CleanupResult) -> str:
    moved = [
        f"{device} {format_size(size)} -> {format_size(cleanup.after.get(device, 0))}"
        for device, size in cleanup.before.items()
    ]
    return ", ".join(moved) or "no device in use"


def summary_lines(report: RunReport, run_seconds: float, gaps: dict[str, str], notes: Iterable[str] = ()) -> list[str]:
    """The summary of a run; empty where there is nothing to say.

    Args:
        report: what the run adds up to.
        run_seconds: how long it took, summed over its workers.
        gaps: what could not be measured, with the reason.
        notes: what else there is to say, a line each.
    """
    lines = [line for record in report.records for line in _record_lines(record)]
    known = [leak for record in report.records for leak in record.leaks if leak.known]
    if known:
        size = format_size(sum(leak.leaked_bytes for leak in known))
        lines.append(f"known leaks: {len(known)}, {size} ({known[0].known})")
    lines += failure_lines(report.failures)
    if report.given_back_bytes >= _LEAST_TOLD_BYTES:
        cleanups = f" in {report.cleanups} cleanups" if report.cleanups else ""
        lines.append(f"given back: {format_size(report.given_back_bytes)}{cleanups}")
    lines += [f"not measured: {source}: {reason}" for source, reason in gaps.items()]
    lines += notes
    if not lines:
        return []
    share = f" ({100 * report.seconds / run_seconds:.1f} % of the run)" if run_seconds > 0 else ""
    lines.append(f"cost: {format_seconds(report.seconds)}{share}{_cost_of_leaks(report.records)}")
    return lines


def _cost_of_leaks(records: Iterable[TestRecord]) -> str:
    """Say how much of the cost went into leaks: in a small suite they are nearly all of it."""
    leaky = [record for record in records if record.leaks]
    tests = len({record.test for record in leaky})
    seconds = format_seconds(sum(record.seconds for record in leaky))
    return f", {seconds} of it in {tests} test{'s' * (tests > 1)} with leaks" if leaky else ""


def excuse_of(leak: Leak) -> str:
    """Say why a leak fails nothing; empty where it may."""
    if leak.allowed:
        return f"allowed: {leak.allowed}"
    return f"known: {leak.known}" if leak.known else leak.kept_once


def _record_lines(record: TestRecord) -> Iterator[str]:
    for leak in record.leaks:
        if leak.known:  # a suite may have hundreds: they are counted
            continue
        where = f", where that is GPU {record.assigned}" if record.assigned and leak.device != "cpu" else ""
        yield f"{_word(leak)} {record.test}: {leak_headline(leak).removeprefix('gpuclean: ')}{where}"
        holders = [holder for holder in leak.explanation.holders if holder.is_known] if leak.explanation else []
        if holders:
            yield f"  held by {holders[0].chain}"
        if leak.excused:
            yield f"  {excuse_of(leak)}"
    for process in record.left[:_MOST_LEFT_TOLD]:
        word = "ALIVE" if process.is_unkillable else "LEFT" if process.is_spared else "STOPPED"
        starter = "" if process.started_by in ("", record.test) else f", started by {process.started_by}"
        yield f"{word} {record.test}: {describe_left(process)}{starter}"
        yield f"  {process.command}"
    if len(record.left) > _MOST_LEFT_TOLD:
        more = record.left[_MOST_LEFT_TOLD:]
        alive = sum(process.is_alive for process in more)
        yield f"LEFT {record.test}: {len(more)} more processes, {alive or 'none'} of them still there"
    for problem in record.problems:
        yield f"TROUBLE {record.test}: {problem}"


def _word(leak: Leak) -> str:
    if leak.excused:
        return "KEPT" if leak.kept_once else "ALLOWED"
    return "PEAK" if leak.kind == "peak" else "LEAK"


def header_line(parts: Sequence[str], gaps: Iterable[tuple[str, str]]) -> str:
    """The line at the top of a run."""
    missing = [f"not measured: {source} ({reason})" for source, reason in gaps]
    return f"gpuclean: {'; '.join([*parts, *missing])}"
