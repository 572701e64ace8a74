"""`python -m benchmarks.plot`: draws docs/benchmarks.svg from the results, with matplotlib."""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.measure import Row
from benchmarks.page import PLOT, RESULTS, from_wire
from benchmarks.per_test import GROUPS

CURVES = {
    "tests": ("Cost of a test in a long run", "tests in the run", "µs above a run without"),
    "records": ("Memory of a long run", "tests in the run", "MiB above a run without"),
    "heap": ("Cost of a test on a large heap", "objects more than pytest's and torch's own", "µs"),
    "processes": ("Cost of a test among many processes", "processes on the machine", "µs"),
    "watch": ("Watching processes, a test", "processes on the machine", "µs"),
    "stopping": ("Stopping children that sleep", "children", "ms"),
}
LINEAR = {"records"}
"""Whose figures may be 0 or less."""
LEAST = 0.1
"""What a logarithmic axis begins with: below it nothing can be told from nothing."""
OURS = ("gate alone", "quick", "comprehensive")
SHORT = {
    "use no memory": "no memory",
    "take 4 MiB and free it": "4 MiB, freed",
    "leave 4 MiB in a garbage cycle": "4 MiB, garbage",
    "1 simulated device": "1 device",
    "2 simulated devices": "2 devices",
    "host memory": "host",
}


def draw(rows: Sequence[Row], path: Path) -> None:
    """Draw what was measured.

    Args:
        rows: of all benchmarks; those without a point are left out.
        path: of the SVG.
    """
    import matplotlib as mpl

    mpl.use("svg")
    # The same results give the same file, and text stays text.
    mpl.rcParams.update({"svg.hashsalt": "benchmarks", "svg.fonttype": "none", "font.size": 8})
    from matplotlib import pyplot as plt

    panels = list(CURVES)
    wide = [[name, name] for name in ("bars", "budgets")]
    figure, axes = plt.subplot_mosaic(
        [*wide, *zip(panels[::2], panels[1::2], strict=True)], figsize=(10, 17), layout="constrained"
    )
    _bars(axes["bars"], rows)
    _budgets(axes["budgets"], rows)
    for panel, labels in CURVES.items():
        _curve(axes[panel], panel, labels, rows)
    figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})
    plt.close(figure)


def _bars(axis: Any, rows: Sequence[Row]) -> None:
    """Draw what a test costs, side by side with what is done by hand."""
    found = [(row, row.point) for row in rows if row.point is not None and row.point.panel == "a test"]
    lines = list(dict.fromkeys(point.line for _, point in found))
    lines.sort(key=lambda line: line not in OURS)
    for at, line in enumerate(lines):
        of_it = [(point.x, max(LEAST, row.measured)) for row, point in found if point.line == line]
        width = 0.8 / max(1, len(lines))
        axis.bar([x + (at - len(lines) / 2) * width for x, _ in of_it], [y for _, y in of_it], width, label=line)
    axis.set(title="Cost of a test, above a test without", ylabel="µs", yscale="log")
    labels = ["\n".join(SHORT[part] for part in group.removeprefix("tests that ").split("; ")) for group in GROUPS]
    axis.set_xticks(range(len(GROUPS)), labels)
    if found:
        axis.set_ylim(top=axis.get_ylim()[1] * 10)  # room for the legend
        axis.legend(fontsize=6, ncols=3, loc="upper left")


def _budgets(axis: Any, rows: Sequence[Row]) -> None:
    """Draw each promise's worst figure as a part of its budget."""
    from benchmarks.budgets import look_at

    kept = [(each.promise.what, each.worst) for each in look_at(rows) if each.worst is not None]
    parts = [max(0.001, worst.measured / worst.budget) for _, worst in kept if worst.budget]
    colours = ["tab:red" if part > 1 else "tab:green" for part in parts]
    axis.barh(range(len(parts)), parts, color=colours)
    axis.set_yticks(range(len(parts)), [textwrap.fill(what, 34) for what, _ in kept], fontsize=6)
    axis.invert_yaxis()
    axis.axvline(1.0, color="black", linewidth=1)
    axis.set(title="Worst figure of each promise, as a multiple of its budget", xscale="log")


def _curve(axis: Any, panel: str, labels: tuple[str, str, str], rows: Sequence[Row]) -> None:
    found = [(row, row.point) for row in rows if row.point is not None and row.point.panel == panel]
    least = -float("inf") if panel in LINEAR else LEAST
    for line in dict.fromkeys(point.line for _, point in found):
        of_it = sorted((point.x, max(least, row.measured)) for row, point in found if point.line == line)
        axis.plot([x for x, _ in of_it], [y for _, y in of_it], marker="o", label=line)
    title, x, y = labels
    axis.set(title=title, xlabel=x, ylabel=y, xscale="log", yscale="linear" if panel in LINEAR else "log")
    if panel in LINEAR:
        axis.set_ylim(bottom=min(0, axis.get_ylim()[0]))
    if found:
        axis.legend(fontsize=6)
    else:
        axis.text(0.5, 0.5, "not measured this time", ha="center", transform=axis.transAxes)


def main() -> int:
    """Draw the results that are there."""
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    draw([from_wire(wire) for wire in results["rows"]], PLOT)
    return 0


if __name__ == "__main__":
    sys.exit(main())
