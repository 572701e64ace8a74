"""`python -m benchmarks.soak [serial|workers] [--tests N] [--seconds S] [--seed N] [--run N]`: run long, then judge.

One line a check; the exit status is 1 where one does not hold.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import random
import sys
import time
from collections.abc import Iterable, Iterator
from itertools import chain

from benchmarks.soak import serial, workers
from benchmarks.soak.checks import Check

PARTS = ("serial", "workers")
TESTS = 100_000
SECONDS = 3600.0


def main() -> int:
    """Run what is asked for; the exit status says whether every check holds."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help="serial, workers; both by default")
    parser.add_argument("--tests", type=int, default=TESTS, help=f"of the one long run ({TESTS:,})")
    parser.add_argument("--seconds", type=float, default=SECONDS, help=f"for the runs under xdist ({SECONDS:g})")
    parser.add_argument("--seed", type=int, default=None, help="what those are drawn from; a new one by default")
    parser.add_argument("--run", type=int, default=None, help="make the run of this number alone")
    options = parser.parse_args()
    unknown = sorted({*options.parts} - {*PARTS})
    if unknown:
        parser.error(f"{', '.join(unknown)}: no such part; there are {', '.join(PARTS)}")
    if options.tests < 10:
        parser.error(f"--tests: {options.tests} is too few; a tenth of them is compared with another")
    missing = [name for name in ("torch", "numpy", "xdist") if importlib.util.find_spec(name) is None]
    if missing:
        parser.error(f"{', '.join(missing)} is not installed")
    seed = random.SystemRandom().randrange(10**9) if options.seed is None else options.seed
    mark = f"soak{os.getpid()}x{seed}"
    print(f"seed {seed}", flush=True)
    parts: dict[str, Iterable[Check]] = {
        "serial": serial.run(options.tests, mark + "s"),
        "workers": workers.run(options.seconds, seed, mark + "w", options.run),
    }
    wanted = ["workers"] if options.run is not None else options.parts or PARTS
    return _tell(chain.from_iterable(parts[name] for name in wanted))


def _tell(found: Iterator[Check]) -> int:
    begin = time.monotonic()
    judged = []
    for check in found:
        print(check.line, flush=True)
        judged.append(check)
    failed = sum(not check.holds for check in judged)
    print(f"{len(judged)} checks, {failed} failed, {time.monotonic() - begin:.0f} s")
    return 1 if failed or not judged else 0


if __name__ == "__main__":
    sys.exit(main())
