"""`python tests/built/contents.py DIST`: check what is in the wheel and in the source distribution."""

from __future__ import annotations

import sys
import tarfile
import zipfile
from collections.abc import Collection, Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
NAME = "pytest_gpuclean"
NEEDED = (f"{NAME}/py.typed", f"{NAME}/reports/assets/page.html", f"{NAME}/reports/assets/uplot.LICENSE")
SHIPPED = ("tests/conftest.py", "examples/pytest.ini", "docs/reference.md", "benchmarks/__main__.py")
TOP = ("LICENSE", "PKG-INFO", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "pyproject.toml", "tox.ini")


def package_files(root: Path) -> set[str]:
    """Name the files of the package in the checkout."""
    return {
        path.relative_to(root).as_posix()
        for path in (root / NAME).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def faults_of_wheel(names: Collection[str], package: Collection[str]) -> Iterator[str]:
    """Say what the wheel lacks, and what it has too much.

    Args:
        names: what is in it.
        package: the files of the package in the checkout.
    """
    for name in (*NEEDED, *package):
        if name not in names:
            yield f"the wheel has no {name}"
    for name in sorted(names):
        if name not in package and not name.split("/")[0].endswith(".dist-info"):
            yield f"the wheel has {name}, which is no part of the package"
    for kind in ("METADATA", "entry_points.txt", "licenses/LICENSE"):
        if not any(name.endswith(f".dist-info/{kind}") for name in names):
            yield f"the wheel has no {kind}"


def faults_of_sdist(names: Collection[str], package: Collection[str]) -> Iterator[str]:
    """Say what the source distribution lacks, and what it has too much.

    Args:
        names: what is in it, without the folder that all of it is in.
        package: the files of the package in the checkout.
    """
    for name in (*package, *SHIPPED, *TOP):
        if name not in names:
            yield f"the source distribution has no {name}"
    for name in sorted(names):
        if "__pycache__" in name or name.endswith((".pyc", ".so")) or name.startswith((".tox", ".venv")):
            yield f"the source distribution has {name}, which is no source"


def main(folder: Path) -> int:
    """Check the one wheel and the one source distribution of a folder."""
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    package = package_files(ROOT)
    with zipfile.ZipFile(wheel) as archive:
        found = [*faults_of_wheel(archive.namelist(), package)]
    with tarfile.open(sdist) as archive:
        names = {member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()}
    found += faults_of_sdist(names, package)
    for fault in dict.fromkeys(found):
        print(fault)
    print(f"{wheel.name}, {sdist.name}: {len(package)} files of the package, {len(found)} faults")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
