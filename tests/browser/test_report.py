"""The report in a headless Chromium: what a reader sees, points at, clicks and types."""

import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from s2s_search.report.contents import write_report
from s2s_search.results.results import load
from tests.runs import SPACE, write_run

playwright = pytest.importorskip(
    "playwright.sync_api", reason="playwright is not installed: pip install -e '.[dev]'"
)
CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        CHROMIUM is None, reason="there is no Chromium on the PATH, such as Debian's chromium"
    ),
]

DRAW_ALL = "dispatchEvent(new Event('beforeprint'))"
ROWS = ".ranking tbody tr"
MANY = 2000
EXAMPLE = {
    "source": ["a"],
    "references": [["A"]],
    "answer": ["A"],
    "attention": [[0.7, 0.3], [0.0, 1.0]],
}

# The contrast of every text with what is behind it (WCAG 2): the worst, with its text.
CONTRAST = """() => {
  const channel = (c) => (c /= 255) <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  const luminance = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const behind = (e) => { for (; e; e = e.parentElement) {
    const c = numbers(getComputedStyle(e).backgroundColor); if ((c[3] ?? 1) > 0) return c; } };
  const found = [];
  for (const e of document.querySelectorAll("body *")) {
    const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || !e.checkVisibility() || e.closest("script, style, :disabled")) continue;
    const style = getComputedStyle(e);
    const ink = e instanceof SVGElement ? style.fill : style.color;
    if (!ink.startsWith("rgb") || style.fillOpacity === "0") continue;
    if ((numbers(ink)[3] ?? 1) === 0) continue;
    const [a, b] = [luminance(numbers(ink)), luminance(behind(e))].sort((x, y) => y - x);
    found.push([(a + 0.05) / (b + 0.05), e.textContent.slice(0, 40)]);
  }
  return [found.length, found.sort((x, y) => x[0] - y[0])[0]];
}"""

# The marks and labels of the figures that lie below the buttons of their figure.
COVERED = """() => [...document.querySelectorAll('.plot')].flatMap((plot) => {
  const bar = plot.querySelector('.modebar').getBoundingClientRect();
  return [...plot.querySelectorAll('.point, .bars path, .xtick text, .x2tick text, .ytick text, .legendtext, .axis-title')]
    .filter((e) => { const r = e.getBoundingClientRect();
      return r.left < bar.right && r.right > bar.left && r.top < bar.bottom && r.bottom > bar.top; })
    .map((e) => `${plot.ariaLabel.slice(0, 30)}: ${e.getAttribute('class')} ${e.textContent}`);
})"""

# Where a point of a plot is in the window, by the number of its trial.
PLACE = """([plot, number]) => {
  const trace = plot._fullData.find((t) => t.customdata?.includes(number) && t.visible === true);
  const last = trace.customdata.lastIndexOf(number);
  const i = trace.x[last] === null ? last - 1 : last;
  const { xaxis, yaxis } = plot._fullLayout, box = plot.getBoundingClientRect();
  const x = box.left + xaxis._offset + xaxis.d2p(trace.x[i]);
  return [x, box.top + yaxis._offset + yaxis.d2p(trace.y[i])];
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=CHROMIUM)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = write_run(tmp_path_factory.mktemp("runs") / "run", example=EXAMPLE)
    return write_report([run])[0]


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "many"
    return write_report([write_run(folder, trials=MANY, reports=20)])[0]


class Reader:
    """A page of the browser that has opened a report, and what went wrong on it."""

    def __init__(self, browser: Any, path: Path, **context: Any) -> None:
        self.wrong: list[str] = []
        self.requests: list[str] = []
        self.page = browser.new_page(**context)
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on(
            "console", lambda said: self.wrong.append(said.text) if said.type == "error" else None
        )
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri())

    def plot(self, section: str) -> Any:
        """The first plot below a heading, drawn and in the window."""
        plot = self.page.locator(f"section[aria-labelledby={section}] .plot").first
        plot.scroll_into_view_if_needed()
        plot.locator(".main-svg").first.wait_for()
        return plot

    def column(self, number: int) -> list[str]:
        texts: list[str] = self.page.locator(f"{ROWS} td:nth-child({number})").all_inner_texts()
        return texts

    def hover(self, plot: Any, number: int, name: str = "") -> str:
        """Returns the label at a trial's last mark; it must contain `name`, or the trial's name."""
        x, y = plot.evaluate(f"(plot, number) => ({PLACE})([plot, number])", number)
        self.page.mouse.move(x + 1, y)
        self.page.wait_for_timeout(100)  # labels follow the pointer at intervals
        self.page.mouse.move(x, y)
        label = plot.locator(".hoverlayer .hovertext", has_text=name or f"trial-{number:05d}")
        label.wait_for()
        return str(label.text_content())


def finished(report: Path) -> list[int]:
    """Returns the trials with all steps, best first; the first and the last have none near them."""
    ranked = load(report.parent).best(None)
    return [
        int(trial.removeprefix("trial-"))
        for trial in ranked.loc[ranked["status"] == "finished", "trial"]
    ]


@pytest.fixture
def reader(browser: Any, report: Path) -> Iterator[Reader]:
    opened = Reader(browser, report, viewport={"width": 1280, "height": 900})
    yield opened
    opened.page.close()


def test_it_opens_without_an_error_and_asks_for_nothing(reader: Reader) -> None:
    reader.page.evaluate(DRAW_ALL)
    reader.page.wait_for_timeout(500)
    assert reader.wrong == []
    assert [url for url in reader.requests if not url.startswith(("file:", "data:", "blob:"))] == []


def test_every_plot_is_drawn(reader: Reader) -> None:
    plots = reader.page.locator(".plot")
    assert plots.count() > 10
    reader.page.evaluate(DRAW_ALL)
    reader.page.wait_for_function(
        "[...document.querySelectorAll('.plot')].every((p) => p.querySelector('svg, canvas'))"
    )
    marks = "path.point, path.js-line, .points path, image, canvas"
    drawn = plots.evaluate_all(f"(plots) => plots.map((p) => p.querySelectorAll('{marks}').length)")
    assert all(count > 0 for count in drawn)


@pytest.mark.parametrize("touch", [False, True])
def test_the_buttons_of_a_figure_show_under_the_pointer_and_cover_nothing(
    browser: Any, report: Path, touch: bool
) -> None:
    """Without a pointer, as on a phone or in a picture of the page, plotly would show them always."""
    opened = Reader(
        browser, report, viewport={"width": 1280, "height": 900}, has_touch=touch, is_mobile=touch
    )
    opened.page.evaluate(DRAW_ALL)
    buttons = opened.page.locator(".plot .modebar-btn")
    assert buttons.count() > 50
    shown = "(all) => all.filter((one) => one.checkVisibility({ opacityProperty: true })).length"
    assert buttons.evaluate_all(shown) == 0
    assert opened.page.evaluate(COVERED) == []
    plot = opened.plot("one-hyperparameter-at-a-time")
    plot.locator(".nsewdrag").first.hover()
    opened.page.wait_for_function(f"({shown})([...document.querySelectorAll('.modebar-btn')]) > 0")
    opened.page.close()


@pytest.mark.parametrize("width", [800, 1300, 3000])
def test_the_ranking_fits_or_says_that_it_scrolls(browser: Any, report: Path, width: int) -> None:
    opened = Reader(browser, report, viewport={"width": width, "height": 900})
    opened.page.wait_for_timeout(300)
    table = opened.page.locator(".ranking .scroll")
    is_wide = table.evaluate("(scroll) => scroll.scrollWidth > scroll.clientWidth")
    assert opened.page.get_by_text("scroll it sideways").is_visible() == is_wide
    assert (
        opened.page.evaluate("document.documentElement.scrollWidth") <= width
    )  # the page itself never does
    opened.page.close()


@pytest.mark.parametrize("rank", [0, -1])
def test_the_pointer_on_a_curve_names_its_trial_and_lifts_it(
    reader: Reader, report: Path, rank: int
) -> None:
    plot = reader.plot("learning-curves")
    assert "optimizer.learning_rate" in reader.hover(plot, finished(report)[rank])
    lifted = plot.evaluate("(plot) => plot.data.at(-1).x")
    assert lifted == [100, 200, 300, 400]


def test_the_pointer_on_a_mark_names_its_trial_and_a_label_is_shown_as_it_is(
    reader: Reader,
) -> None:
    trial = reader.page.locator(ROWS, has_text="<script>").first.locator("td").nth(1).inner_text()
    said = reader.hover(
        reader.plot("one-hyperparameter-at-a-time"), int(trial.removeprefix("trial-"))
    )
    assert "encoder.rnn_cell.cell_spec <script>alert(1)</script>" in said
    assert reader.page.evaluate("document.querySelectorAll('main script').length") == 0
    assert "<script>alert(1)</script>" in reader.page.locator(".ranking").inner_text()


# --- the ranking ---


def test_a_click_sorts_by_number_and_a_second_one_the_other_way(reader: Reader) -> None:
    heading = reader.page.get_by_role("columnheader", name="best.step")
    heading.get_by_role("button").click()
    column = reader.page.locator(".ranking th").all_inner_texts()
    number = next(
        k for k, text in enumerate(column, 1) if text.replace("\n", "").startswith("best.step")
    )
    found = [int(text) for text in reader.column(number)]
    assert found == sorted(found)
    assert heading.get_attribute("aria-sort") == "ascending"
    heading.get_by_role("button").click()
    found = [int(text) for text in reader.column(number)]
    assert found == sorted(found, reverse=True)
    assert heading.get_attribute("aria-sort") == "descending"
    assert reader.page.get_by_role("columnheader", name="rank").get_attribute("aria-sort") == "none"


def test_trials_without_a_value_come_last_both_ways(reader: Reader) -> None:
    heading = reader.page.get_by_role("columnheader", name="best.dev.error_rate").get_by_role(
        "button"
    )
    for _ in range(2):
        heading.click()
        assert "-" not in reader.column(3)
    reader.page.get_by_role("button", name="Next").click()
    assert reader.column(3)[-3:] == ["-", "-", "-"]


def test_the_field_keeps_the_rows_with_all_its_words(reader: Reader) -> None:
    reader.page.get_by_label("Rows that contain").fill("stopped Attention")
    statuses = reader.column(4)
    assert statuses
    assert set(statuses) == {"stopped"}
    assert all("Attention" in text for text in reader.page.locator(ROWS).all_inner_texts())
    assert (
        reader.page.locator(".controls [role=status], .controls span")
        .inner_text()
        .startswith(f"{len(statuses)} of 40")
    )
    reader.page.get_by_label("Rows that contain").fill("no such row")
    assert reader.page.locator(ROWS).count() == 0


def test_it_is_sorted_and_filtered_with_the_keyboard_alone(reader: Reader) -> None:
    page, focused = reader.page, "document.activeElement.textContent || document.activeElement.id"
    seen = []
    for _ in range(60):
        page.keyboard.press("Tab")
        seen.append(page.evaluate(focused))
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none", (
            seen[-1]
        )
        if seen[-1] == "filter":
            page.keyboard.type("finished")
            assert set(reader.column(4)) == {"finished"}
        if seen[-1].startswith("trial"):
            break
    page.keyboard.press("Enter")
    page.keyboard.press("Space")
    assert reader.column(2) == sorted(reader.column(2), reverse=True)
    assert "Dark page" in seen


# --- themes ---


@pytest.mark.parametrize("width", [1280, 600])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_text_is_readable_in_both_themes(
    browser: Any, report: Path, theme: str, width: int
) -> None:
    reader = Reader(browser, report, color_scheme=theme, viewport={"width": width, "height": 900})
    reader.page.evaluate(DRAW_ALL)
    reader.page.wait_for_timeout(500)
    count, (worst, text) = reader.page.evaluate(CONTRAST)
    assert count > 500
    assert worst >= 4.5, text
    assert (
        reader.page.evaluate("document.documentElement.scrollWidth") <= width
    )  # wide parts scroll by themselves
    reader.page.close()


def test_the_button_changes_the_theme_and_the_figures_with_it(reader: Reader) -> None:
    plot = reader.plot("learning-curves")
    colour = "(plot) => plot._fullLayout.font.color"
    assert plot.evaluate(colour) == "#1f2328"
    reader.page.get_by_role("button", name="Dark page").click()
    assert plot.evaluate(colour) == "#e4e7ea"
    assert reader.page.evaluate("document.documentElement.dataset.theme") == "dark"
    reader.page.get_by_role("button", name="Light page").click()
    assert plot.evaluate(colour) == "#1f2328"


def test_a_theme_that_was_chosen_outlasts_a_change_of_the_systems(
    browser: Any, report: Path
) -> None:
    reader = Reader(browser, report, color_scheme="light")
    theme = "document.documentElement.dataset.theme"
    reader.page.emulate_media(color_scheme="dark")
    reader.page.wait_for_function(f"{theme} === 'dark'")  # the page hears of it a little later
    reader.page.get_by_role("button", name="Light page").click()
    for scheme in ("light", "dark"):
        reader.page.emulate_media(color_scheme=scheme)
        reader.page.wait_for_function(f"matchMedia('(prefers-color-scheme: {scheme})').matches")
        reader.page.wait_for_timeout(200)
        assert reader.page.evaluate(theme) == "light"
    reader.page.close()


def test_a_text_that_is_named_like_a_part_of_every_object_is_shown(reader: Reader) -> None:
    reader.page.get_by_role("button", name="Dark page").click()
    assert reader.page.evaluate("themed(['constructor', 'toString', 'a'])") == [
        "constructor",
        "toString",
        "a",
    ]


# --- many trials ---


def test_two_thousand_trials_stay_usable(browser: Any, many: Path) -> None:
    started = time.monotonic()
    reader = Reader(browser, many, viewport={"width": 1280, "height": 900})
    reader.page.locator(ROWS).first.wait_for()
    opened = time.monotonic() - started
    heading = reader.page.get_by_role("columnheader", name="best.dev.error_rate").get_by_role(
        "button"
    )
    clicked = time.monotonic()
    heading.click()
    sorted_after = time.monotonic() - clicked
    found = [float(text) for text in reader.column(3)]
    assert found == sorted(found)
    assert reader.page.locator(ROWS).count() <= 50
    assert reader.page.evaluate("document.querySelectorAll('*').length") < 20_000
    plot = reader.plot("learning-curves")
    best = finished(many)[0]  # others end within the three pixels of a mark
    named = re.match("trial-([0-9]{5}) finished.*step 2000: ", reader.hover(plot, best, "trial-"))
    assert named
    values = load(many.parent).trials["last.dev.error_rate"]
    assert values[int(named[1])] == pytest.approx(values[best], rel=0.05)
    reader.page.evaluate(DRAW_ALL)
    assert reader.wrong == []
    size = many.stat().st_size / 2**20
    print(
        f"\n{MANY} trials of 20 reports: {size:.1f} MiB, opened in {opened:.1f} s, "
        f"sorted in {sorted_after:.2f} s"
    )
    reader.page.close()


def test_many_runs_side_by_side_have_room_in_webgl(browser: Any, tmp_path: Path) -> None:
    """A browser gives up the oldest of about 16 WebGL contexts; a figure takes three."""
    runs = [write_run(tmp_path / f"run-{k}", trials=12, text=SPACE) for k in range(7)]
    reader = Reader(browser, write_report(runs)[0], viewport={"width": 1280, "height": 900})
    for plot in reader.page.locator(".plot").all():
        plot.scroll_into_view_if_needed()
    reader.plot("parallel-coordinates")
    reader.page.wait_for_timeout(300)
    assert reader.wrong == []
    reader.page.close()
