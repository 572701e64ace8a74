"""Every cause has a line of advice and a heading of the page that it links to."""

from pathlib import Path

import pytest

from pytest_gpuclean.reports.advice import ADVICE, PAGE, advice_on

PAGE_FILE = Path(__file__).parents[3] / PAGE
HEADINGS = [line[3:] for line in PAGE_FILE.read_text(encoding="utf-8").splitlines() if line.startswith("## ")]


def test_the_page_has_a_heading_for_each_cause_in_the_same_order():
    assert list(ADVICE) == HEADINGS


@pytest.mark.parametrize("cause", ADVICE)
def test_advice_is_one_short_line_that_links_to_the_page(cause):
    line = advice_on(cause)
    assert line.endswith(f" ({PAGE}#{cause})")
    assert len(line) < 150
    assert "\n" not in line


def test_a_cause_without_advice_still_links_to_the_page():
    assert advice_on("something-new") == f"read on in {PAGE}#something-new"
