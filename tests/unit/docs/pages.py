"""The pages of the documentation, and the blocks of code in them."""

import re
import textwrap
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[3]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), ROOT / "examples" / "README.md"]
_FENCE = re.compile(r"^( *)```(\w*)(?: title=\"([^\"]+)\")?\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """One block of code."""

    page: str
    line: int
    language: str
    title: str
    """The name of the file that it is; empty where it is none."""
    text: str

    def __str__(self):
        return f"{self.page}:{self.line}"


def name_of(page):
    return page.relative_to(ROOT).as_posix()


def blocks(*languages, page=None):
    """Give the blocks in some languages; of all pages, or of one."""
    found = []
    for one in PAGES if page is None else [page]:
        text = one.read_text(encoding="utf-8")
        for match in _FENCE.finditer(text):
            _, language, title, code = match.groups()
            if language in languages:
                line = text.count("\n", 0, match.start()) + 1
                found.append(Block(name_of(one), line, language, title or "", textwrap.dedent(code)))
    return found


def prose(page):
    """Give a page without its blocks of code."""
    return _FENCE.sub("", page.read_text(encoding="utf-8"))


def commands(block):
    """Give the commands in a block that are of pytest or of gpuclean, less what a shell makes of their output."""
    text = re.sub(r"(?: *\\)?\n +(?=--)", " ", block.text)  # those that go on in the next line
    starts = r"\$ " if block.language == "console" else r"(?:- )*(?:run: )?(?:>- )?(?:sh ')?(?:\w+=\S+ )*"
    for found in re.finditer(rf"^ *{starts}(?:\.venv/bin/|python -m )?((?:pytest|gpuclean) .+)$", text, re.MULTILINE):
        command = re.split(r" (?:&&|#|\|\|) ", found[1])[0].rstrip().rstrip("'")
        yield command
        before, runs, inner = command.partition(" -- ")
        if runs and inner.startswith("pytest"):
            yield inner
