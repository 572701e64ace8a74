"""Every link of the documents, and every page that a message names, is there: pages, headings and files."""

import re
from pathlib import Path

import pytest

from pytest_gpuclean.reports.advice import ADVICE, PAGE

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    path
    for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md"))
    if "node_modules" not in path.parts
)
SOURCES = sorted((ROOT / "pytest_gpuclean").rglob("*.py"))

FENCED = re.compile(r"^ {0,3}(```+|~~~+).*?^ {0,3}\1", re.MULTILINE | re.DOTALL)
INLINE_CODE = re.compile(r"`[^`\n]*`")
LINK = re.compile(r"(?<!\!)\[(?:[^\]\[]|\[[^\]]*\])*\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)")
IMAGE = re.compile(r"!\[[^\]]*\]\(\s*([^)\s]+)[^)]*\)")
REFERENCE = re.compile(r"^\[[^\]]+\]:\s*(\S+)", re.MULTILINE)
NAMED = re.compile(r"\bdocs/[\w./-]+\.md(?:#[\w-]+)?")
"""A page as a message of the plugin names it."""
HEADING = re.compile(r"^#{1,6}\s+(.*?)\s*#*\s*$", re.MULTILINE)
ANCHOR = re.compile(r"<a\s+(?:name|id)=\"([^\"]+)\"|\{\s*#([\w-]+)\s*\}")


def headings_of(text):
    """Give the anchors of a page, as GitHub and the usual site generators make them of its headings."""
    seen = {}
    for heading in HEADING.findall(FENCED.sub("", text)):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", ANCHOR.sub("", heading)).replace("`", "")
        slug = re.sub(r"[^\w\- ]", "", plain.strip().lower()).replace(" ", "-")
        count = seen[slug] = seen.get(slug, -1) + 1
        yield f"{slug}-{count}" if count else slug
    for name, identifier in ANCHOR.findall(text):
        yield name or identifier


def links_of(text):
    """Give what a page links to, outside of its code."""
    prose = INLINE_CODE.sub("``", FENCED.sub("", text))
    return [*LINK.findall(prose), *IMAGE.findall(prose), *REFERENCE.findall(prose)]


def broken(link, folder, page=None):
    """Say what is wrong with a link from a page in a folder, or None."""
    if re.match(r"[a-z][a-z0-9+.-]*:", link):
        return None  # of the web; nothing is asked over the net
    path, _, anchor = link.partition("#")
    target = (folder / path) if path else page
    if not target.exists():
        return f"{link}: there is no {path}"
    if anchor and target.suffix == ".md" and anchor not in headings_of(target.read_text(encoding="utf-8")):
        return f"{link}: {target.name} has no heading {anchor!r}"
    return None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_of_a_page_leads_somewhere(page):
    text = page.read_text(encoding="utf-8")
    wrong = [broken(link, page.parent, page) for link in links_of(text)]
    wrong += [broken(link, ROOT) for link in NAMED.findall(text) if page.parent == ROOT]
    assert [*filter(None, wrong)] == []


def test_every_page_that_a_message_names_is_there():
    named = {(path.name, link) for path in SOURCES for link in NAMED.findall(path.read_text(encoding="utf-8"))}
    assert named
    assert [fault for name, link in sorted(named) if (fault := broken(link, ROOT))] == []


def test_every_cause_of_a_leak_has_its_heading():
    assert ADVICE
    assert [fault for cause in ADVICE if (fault := broken(f"{PAGE}#{cause}", ROOT))] == []


@pytest.mark.parametrize(
    ("link", "fault"),
    [
        ("there.md", None),
        ("there.md#a-heading-with-code", None),
        ("there.md#twice-1", None),
        ("there.md#by-hand", None),
        ("#here", None),
        ("https://example.org/nothing#like-it", None),
        ("gone.md", "gone.md: there is no gone.md"),
        ("there.md#in-code", "there.md#in-code: there.md has no heading 'in-code'"),
        ("#there", "#there: page.md has no heading 'there'"),
    ],
)
def test_what_is_wrong_with_a_link_is_said(tmp_path, link, fault):
    (tmp_path / "there.md").write_text(
        'A heading\n\n# A heading, with `code`\n\n```\n# In code\n```\n\n## Twice\n\n## Twice\n\n<a id="by-hand"></a>\n'
    )
    page = tmp_path / "page.md"
    page.write_text(f"# Here\n\n[text with `code`]({link})\n\n`[no](link.md)`\n\n```\n[no](link.md)\n```\n")
    assert links_of(page.read_text()) == [link]
    assert broken(link, tmp_path, page) == fault
