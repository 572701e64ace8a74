"""Text about tests that ran out of memory or met a lost device: what was held, by whom, and what to do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from pytest_gpuclean.model.leaks import Leak
from pytest_gpuclean.model.memory import Holdings, Reading
from pytest_gpuclean.model.records import DeviceFailure
from pytest_gpuclean.units import format_size

_MOST_NAMED = 3
_LEAST_TOLD_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Elsewhere:
    """What the driver says of other processes on the devices where memory ran out."""

    sentences: tuple[str, ...] = ()
    held_bytes: int = 0
    """By all of them, as far as the driver says."""


NOWHERE = Elsewhere()
"""Where there is no driver to ask."""


def victim_text(
    failure: DeviceFailure,
    held: Holdings,
    leaks: Iterable[Leak],
    others: Elsewhere = NOWHERE,
    *,
    may_retry: bool = True,
) -> str:
    """Tell what was held when memory ran out, and by whom.

    Args:
        failure: of the test that ran out of memory.
        held: read before anything of the test was let go.
        leaks: of the tests before it, in this process.
        others: other processes on the device.
        may_retry: whether to name the option that runs such tests again.
    """
    asked = "" if failure.asked_bytes is None else f": asked for {format_size(failure.asked_bytes)}"
    lines = [f"gpuclean: ran out of memory{_on(failure.device)}{asked}"]
    readings = [reading for reading in held.snapshot.readings if is_same_device(failure.device, reading.device)]
    for reading in readings:
        cached = reading.reserved_bytes - reading.allocated_bytes
        more = f", and {format_size(cached)} more in its cache" if cached > 0 else ""
        lines.append(
            f"  this process held {format_size(reading.allocated_bytes)} on {reading.device}{more}, as "
            f"{reading.source} says"
        )
    lines += [f"  not measured: {gap.source}: {gap.reason}" for gap in held.snapshot.unavailable]
    if not readings and not held.snapshot.unavailable:
        lines.append("  nothing that is watched in this process is in use there")
    owners = _owners({reading.device for reading in readings}, held, leaks)
    rest = _rest(readings, owners) if held.by_test is not None else 0
    lines += [f"    {format_size(sum(parts.values()))} {whose}: {_named(parts)}" for whose, parts in owners.items()]
    if rest >= _LEAST_TOLD_BYTES:
        lines.append(f"    {format_size(rest)} from before, by nobody who is known")
    lines += [f"  {sentence}" for sentence in others.sentences]
    lines.append(f"  {_advice(failure, readings, owners, rest, others)}")
    if may_retry and not failure.retries:
        lines.append("  or run it again after a comprehensive cleanup: --gpu-oom-retry=1")
    return "\n".join(lines)


def is_same_device(said: str, device: str) -> bool:
    """Whether a device may be the one that an error names: `cuda` is any of them, and no name is any device.

    Args:
        said: what the error names, such as `cuda:0`, `cuda` or nothing.
        device: as readings name it.
    """
    return device == said or (device.startswith(f"{said}:") if said else device != "cpu")


def _on(device: str) -> str:
    return {"": "", "cpu": " in host memory"}.get(device, f" on {device}")


Owners = dict[str, dict[str, int]]
"""By whose it is: names, with their bytes, the largest first."""


def _owners(devices: set[str], held: Holdings, leaks: Iterable[Leak]) -> Owners:
    fixtures: dict[str, int] = {}
    for fixture in held.by_fixtures:
        if fixture.device in devices and fixture.held_bytes >= _LEAST_TOLD_BYTES:
            name = f"{fixture.name!r} ({fixture.scope} scope)"
            fixtures[name] = fixtures.get(name, 0) + fixture.held_bytes
    leaked: dict[str, int] = {}
    for leak in leaks:
        if leak.device in devices and leak.kind != "peak":
            leaked[leak.name] = leaked.get(leak.name, 0) + leak.leaked_bytes
    own = sum(size for device, size in (held.by_test or {}).items() if device in devices)
    owners = {
        "by live fixtures": fixtures,
        "leaked before it, as far as it was not freed since": leaked,
        "since this test began": {"its own": own} if own >= _LEAST_TOLD_BYTES else {},
    }
    return {whose: dict(sorted(parts.items(), key=lambda part: -part[1])) for whose, parts in owners.items() if parts}


def _rest(readings: Iterable[Reading], owners: Owners) -> int:
    return sum(reading.held_bytes for reading in readings) - sum(sum(parts.values()) for parts in owners.values())


def _named(parts: Mapping[str, int]) -> str:
    named = [f"{name} {format_size(size)}" if len(parts) > 1 else name for name, size in parts.items()]
    more = [f"and {len(named) - _MOST_NAMED} more"] if len(named) > _MOST_NAMED else []
    return ", ".join([*named[:_MOST_NAMED], *more])


def _advice(failure: DeviceFailure, readings: Sequence[Reading], owners: Owners, rest: int, others: Elsewhere) -> str:
    if others.held_bytes > sum(reading.reserved_bytes for reading in readings):
        free = "" if failure.asked_bytes is None else f"{format_size(failure.asked_bytes).replace(' ', '')}"
        return (
            f'other processes hold the most: @pytest.mark.gpu_require(free="{free or "..."}") waits for them, and '
            "--gpu-assign gives each worker a card of its own"
        )
    cached = sum(reading.reserved_bytes - reading.allocated_bytes for reading in readings)
    if failure.asked_bytes is not None and cached >= failure.asked_bytes > 0:
        return "its cache has as much, in pieces: PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True keeps it whole"
    sizes = {whose: sum(parts.values()) for whose, parts in owners.items()}
    largest = max(sizes, key=lambda whose: sizes[whose], default="")
    if rest > max(sizes.values(), default=0) and rest >= _LEAST_TOLD_BYTES:
        return "tests before it kept that: --gpu-leak=fail tells which"
    if largest.startswith("leaked"):
        return f"free what {next(iter(owners[largest]))} leaked: its own error says where"
    if largest.startswith("by live"):
        return f"give fixture {next(iter(owners[largest]))} a narrower scope, or free what it does not need any more"
    return "make the test smaller, or let it skip on smaller cards: @pytest.mark.gpu_require(memory=...)"


def lost_text(failure: DeviceFailure, *, with_option: bool) -> str:
    """Tell that a device is lost since this test.

    Args:
        failure: of the test.
        with_option: whether to name the option that says how a run goes on.
    """
    text = (
        f"gpuclean: {failure.device} is lost since this test: {failure.error}\n"
        "  every later use of it in this process fails; only a new process gets it back\n"
        "  what the device was told to do is done later: the call that broke it may be an earlier one; on CUDA, "
        "CUDA_LAUNCH_BLOCKING=1 finds it"
    )
    option = "\n  --gpu-on-lost=stop ends a run here, --gpu-on-lost=replace goes on in a new worker of pytest-xdist"
    return text + option if with_option else text


def consequence_text(failure: DeviceFailure) -> str:
    """Tell whose failure a failure is a consequence of."""
    return f"gpuclean: a consequence of {failure.cause}: {failure.device} is lost since then ({failure.error})"


def failure_lines(failures: Iterable[DeviceFailure]) -> Iterator[str]:
    """The lines of a run's summary: what broke a device and how many failures came of it, and who ran out of memory."""
    failures = list(failures)
    for failure in failures:
        if failure.kind == "lost":
            yield f"LOST {failure.device} since {failure.test}: {failure.error}"
            came = sum(
                other.kind == "consequence" and (other.cause, other.device) == (failure.test, failure.device)
                for other in failures
            )
            if came:
                yield f"  {came} {'failures are consequences' if came > 1 else 'failure is a consequence'} of it"
    for failure in failures:
        if failure.kind == "out_of_memory":
            asked = "" if failure.asked_bytes is None else f", asked for {format_size(failure.asked_bytes)}"
            retried = f"; {failure.retried}" if failure.retried else ""
            yield f"OOM {failure.test}: out of memory{_on(failure.device)}{asked}{retried}"
