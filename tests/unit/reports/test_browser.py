"""The HTML report in a real browser: Debian's chromium, driven by Playwright, where both are installed."""

import contextlib
import shutil

import pytest

from pytest_gpuclean.reports.data import DeviceUse, Report, TestEntry
from pytest_gpuclean.reports.html import HtmlWriter
from pytest_gpuclean.units import MiB
from unit.reports.world import hostile_report, leak, run, whole_report

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
if CHROMIUM is None:
    pytest.skip("there is no chromium", allow_module_level=True)


def long_report(count):
    tests = []
    for number in range(count):
        in_use = number * MiB // 100
        memory = DeviceUse(
            device="cuda:0", begin_bytes=in_use, end_bytes=in_use, reserved_bytes=in_use, peak_bytes=in_use + 64 * MiB
        )
        leaks = (leak(leaked_bytes=number * MiB),) if number % 1000 == 999 else ()
        more = {"started_at": 2.0 + number, "seconds": 0.9, "cost_seconds": 0.001, "memory": (memory,), "leaks": leaks}
        name = f"tests/test_{number // 100}.py::test_it[{number}]"
        tests.append(TestEntry(test=name, outcome="error" if leaks else "passed", **more))
    return Report(runs=(run(*tests),))


@pytest.fixture(scope="module")
def browser():
    with (
        playwright.sync_playwright() as driver,
        contextlib.closing(driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])) as opened,
    ):
        yield opened


@pytest.fixture
def shown(browser, tmp_path):
    """Show a report; gives the page, and what went wrong on it."""

    def show(report, **how):
        path = tmp_path / "report.html"
        with open(path, "w", encoding="utf-8", errors="backslashreplace") as out:
            HtmlWriter().write(report, out)
        page = browser.new_page(viewport={"width": 1200, "height": 900}, **how)
        wrong = []
        page.on("console", lambda message: wrong.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("dialog", lambda dialog: (wrong.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda request: wrong.append(request.url) if "report.html" not in request.url else None)
        page.goto(path.as_uri())
        page.wait_for_selector("#table thead th")
        return page, wrong

    return show


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_report_is_shown(shown, scheme):
    page, wrong = shown(whole_report(), color_scheme=scheme)
    assert page.inner_text("#headline") == "1 leak, 4.0 MiB"
    assert "test_a.CACHE[3]" in page.inner_text("#table")
    assert page.locator("#chart canvas").count() == 1
    assert page.evaluate("document.documentElement.dataset.theme") == scheme
    page.click("#theme")
    assert page.evaluate("document.documentElement.dataset.theme") != scheme
    assert wrong == []


@pytest.mark.parametrize("report", [Report(), Report(runs=(run(),))], ids=["no run", "no test"])
def test_a_report_of_nothing_is_shown(shown, report):
    page, wrong = shown(report)
    assert page.inner_text("#headline") == "no leaks"
    assert "nothing was measured here" in page.inner_text("#chart")
    assert wrong == []


def test_no_foreign_text_runs_or_becomes_an_element(shown):
    page, wrong = shown(hostile_report())
    for tab in page.locator("#tabs button").all():
        tab.click()
    assert page.locator("img, iframe, a").count() == 0
    assert page.locator("script").count() == 3
    assert "<img src=x onerror=alert(1)>" in page.inner_text("body")
    assert wrong == []


def test_ten_thousand_tests_are_sorted_filtered_and_found_in_the_chart(shown):
    page, wrong = shown(long_report(10_000))
    page.locator("#tabs button", has_text="Tests").click()
    assert page.inner_text("#count") == "10,000 of 10,000"
    assert page.locator("#table tbody tr").count() == 200
    page.locator("#table th button", has_text="peak").click()
    assert page.locator("#table tbody tr").first.inner_text().startswith("tests/test_99.py::test_it[9999]")
    page.fill("#filter", "[777]")
    assert page.inner_text("#count") == "1 of 10,000"
    page.locator("#table tbody tr").first.click()
    box = page.locator("#chart .u-over").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert page.inner_text("#under").startswith(
        "tests/test_7.py::test_it[777] (passed, 900 ms): 7.8 MiB → 7.8 MiB, peak"
    )
    page.fill("#filter", "")
    page.click("#more")
    assert page.locator("#table tbody tr").count() == 1200
    assert wrong == []


def test_the_chart_zooms_where_it_is_dragged_and_shows_all_again(shown):
    page, _ = shown(long_report(100))
    ticks = "document.querySelector('#chart .u-over').getBoundingClientRect().width"
    assert page.evaluate(ticks) > 500
    box = page.locator("#chart .u-over").bounding_box()
    middle = box["y"] + box["height"] / 2

    def test_at(share):
        page.mouse.move(box["x"] + box["width"] * share, middle)
        return int(page.inner_text("#under").partition("[")[2].partition("]")[0])

    assert (test_at(0.05), test_at(0.95)) == (4, 94)
    page.mouse.move(box["x"] + box["width"] * 0.4, middle)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.6, middle, steps=5)
    page.mouse.up()
    assert 40 <= test_at(0.05) < test_at(0.95) <= 60
    page.mouse.dblclick(box["x"] + 50, middle)
    assert test_at(0.95) > 90
