"""`python tests/built/installed.py`: check the package that is installed here, which is not the checkout."""

from __future__ import annotations

import importlib.metadata
import importlib.resources
import shutil
import subprocess
import sys
from pathlib import Path

import pytest_gpuclean

CHECKOUT = Path(__file__).parents[2]


def main() -> int:
    """Say what does not work of what a user finds after the installation."""
    folder = Path(pytest_gpuclean.__file__).parent
    scripts = Path(sys.executable).parent
    command = shutil.which("gpuclean", path=str(scripts))
    checks = {
        f"it is installed, and not the checkout ({folder})": folder.parent != CHECKOUT
        and Path(sys.prefix) in folder.parents,
        "it has its types": (folder / "py.typed").is_file(),
        "it has the page of its report": (
            importlib.resources.files("pytest_gpuclean.reports") / "assets" / "page.html"
        ).is_file(),
        "each public name is there": all(
            getattr(pytest_gpuclean, name, None) is not None for name in pytest_gpuclean.__all__
        ),
        "pytest finds it": [
            point.load().__name__
            for point in importlib.metadata.entry_points(group="pytest11")
            if point.name == "gpuclean"
        ]
        == ["pytest_gpuclean.plugin"],
        "the command runs": command is not None
        and subprocess.run([command, "--help"], stdout=subprocess.DEVNULL, check=False).returncode == 0,
        "tests were not installed": importlib.metadata.files("pytest-gpuclean") is not None
        and not any(path.parts[0] == "tests" for path in importlib.metadata.files("pytest-gpuclean") or ()),
    }
    for what, holds in checks.items():
        print(f"{'ok' if holds else 'FAILED'}: {what}")
    return 0 if all(checks.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
