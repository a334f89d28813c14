"""The page of a report: what it says, that it asks nobody, and how it looks in a browser."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from jobs.support.report import CheckLine, Difference, HourLine, Report
from jobs.support.report_page import report_page
from tests.jobs.browser import CHROMIUM, Tab, browser
from tests.jobs.report_by_hand import DIMENSIONS, LABELS, ROLES, full_report, tiny_report

WIDTHS = (390, 1440)
NASTY = "</script><b title='\"'>&amp;<!--"
PLOTS = ["board-plot", "hour-plot", "segment-plot", "calibration-plot"]
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on PATH")


class Seen(HTMLParser):
    """Every element of a page with its attributes, and the text inside of it."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self._open = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._open = tag

    def handle_data(self, data: str) -> None:
        self.texts.setdefault(self._open, []).append(data)

    def headings(self) -> list[str]:
        return [text for text in self.texts["h2"] if text.strip()]


def embedded(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="report-data">(.*?)</script>', page)
    assert found
    data: dict[str, Any] = json.loads(found[1])
    return data


@pytest.fixture(scope="module")
def full() -> str:
    return report_page(full_report())


def renamed(report: Report, name: str) -> Report:
    """The report with ``name`` in every place that holds a text."""
    return replace(
        report, title=name, worst=name, notes=(name,), lineage=((name, name),), reference=name,
        labels=(name,), roles=(name, *report.roles[1:]), hours=(name,), cut=name, time_zone=name,
        board=[replace(b, role=name, label=name, name=name, versions=(name,))
               for b in report.board],
        hourly=[replace(line, role=name, label=name, hour=name, version=name)
                for line in report.hourly[:1]],
        segments=[replace(line, role=name, label=name, dimension=name, value=name)
                  for line in report.segments[:1]],
        calibration=[replace(line, role=name, label=name) for line in report.calibration],
        exposure=[replace(line, role=name, kind=name) for line in report.exposure],
        checks=[CheckLine(name, name, "fail", name, name, name)],
    )  # fmt: skip


def test_the_page_fetches_nothing(full: str) -> None:
    fetching = {"src", "srcset", "href", "action", "data", "poster", "background"}
    for tag, attributes in Seen(full).elements:
        assert not fetching & set(attributes), (tag, attributes)
        assert tag not in {"link", "iframe", "object", "embed", "img", "base"}
        assert not [name for name in attributes if name.startswith("on")], (tag, attributes)
    assert "sourceMappingURL" not in full
    for style in re.findall(r"<style>(.*?)</style>", full, re.DOTALL):
        assert not re.search(r"@import|url\(|//", style)
    own_script = full[full.rindex("<script>") :]
    assert not re.search(r"https?:|['\"`]//|fetch\(|XMLHttpRequest|import\(", own_script)
    policy = next(a for tag, a in Seen(full).elements if "http-equiv" in a)["content"]
    assert policy is not None
    assert policy.startswith("default-src 'none';")


def test_no_text_is_taken_for_markup(full: str) -> None:
    page = report_page(renamed(full_report(), NASTY))
    assert page.count("</script>") == full.count("</script>") == 3
    assert "<b title" not in page
    assert "b" not in {tag for tag, _ in Seen(page).elements}
    data = embedded(page)
    assert data["roles"][0] == data["labels"][0] == data["reference"] == NASTY
    assert NASTY in Seen(page).texts["h1"]


def test_sections_stand_in_their_order(full: str) -> None:
    assert Seen(full).headings() == [
        "Leaderboard", "NDCG@10 by hour", "Segments", "Calibration", "Bias of exposure",
        "Behavioural checks", "Lineage",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("heading", "fields"),
    [
        ("Leaderboard", ("board",)),
        ("NDCG@10 by hour", ("hourly", "history")),
        ("Segments", ("segments",)),
        ("Calibration", ("calibration",)),
        ("Bias of exposure", ("exposure",)),
        ("Behavioural checks", ("checks",)),
        ("Lineage", ("lineage",)),
    ],
)
def test_a_section_of_nothing_is_left_out(full: str, heading: str, fields: tuple[str, ...]) -> None:
    nothing: dict[str, Any] = dict.fromkeys(fields, ())
    page = report_page(replace(full_report(), **nothing))
    assert Seen(page).headings() == [name for name in Seen(full).headings() if name != heading]


def test_what_is_not_known_is_a_dash() -> None:
    report = tiny_report()
    unknown = Difference("champion", None, None, None, None)
    board = [
        replace(line, metrics={"auc": float("nan")}, low=None, high=None, difference=unknown)
        for line in report.board
    ]  # fmt: skip
    hourly = [HourLine("candidate", "click", "h", "1", None, None, None, float("nan"), 0)]
    page = report_page(replace(report, board=board, hourly=hourly))
    cells = re.findall(r'<td data-value="([^"]*)" class="number">(.*?)</td>', page)
    assert len(cells) == 2 * 16
    assert {cell for cell in cells if cell != ("1311.0", "1,311")} == {("", "-")}
    assert ">nan<" not in page.lower()
    assert ">None<" not in page
    assert embedded(page)["hourly"]["rows"][0] == ["candidate", "click", "h", "1", *[None] * 4, 0]
    assert "candidate was not compared with champion." in page


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (0.002, 0.008, "candidate is ahead of champion on click: NDCG@10 +0.0050, "),
        (0.002, 0.008, "95 % interval [+0.0020, +0.0080], adjusted p-value 0.021."),
        (-0.002, 0.008, "candidate and champion cannot be told apart on click"),
        (-0.008, -0.002, "candidate is behind champion on click"),
    ],
)  # fmt: skip
def test_the_headline_says_what_the_interval_does(low: float, high: float, words: str) -> None:
    report = tiny_report()
    difference = Difference("champion", 0.005, low, high, 0.021, 0.0041)
    board = [report.board[0], replace(report.board[1], difference=difference)]
    assert words in report_page(replace(report, board=board))


def test_the_leaderboard_is_best_first(full: str) -> None:
    table = full[full.index("Leaderboard of click") : full.index("Leaderboard of long_view")]
    roles = re.findall(r'<th scope="row" data-value="([^"]*)"', table)
    assert roles == ["candidate", "champion", "champion_yesterday", "popularity_1h",
                     "popularity", "random"]  # fmt: skip
    assert "gbdt_ranker 129 to 131" in table
    assert "&lt;0.001" in table


def test_summary_and_warnings_are_sentences(full: str) -> None:
    assert "1,284,377 rows of 24 hours (2026-11-11T00 to 2026-11-11T23, in UTC" in full
    assert "Only what was known before 2026-11-12T06 counts." in full
    for note in full_report().notes:
        assert f"<strong>Read with care.</strong> {note}" in full
    assert full_report().worst in full
    assert "6 passed; 1 skipped: the rows had nothing for them; 1 failed." in full


def test_a_report_without_a_role_is_refused() -> None:
    with pytest.raises(ValueError, match="names no role"):
        report_page(replace(tiny_report(), roles=()))


def test_a_level_that_is_not_known_is_refused() -> None:
    checks = [CheckLine("a name", "", "warn", "", "", "")]
    with pytest.raises(ValueError, match="one of fail, skip, pass, not warn"):
        report_page(replace(tiny_report(), checks=checks))


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    with browser(tmp_path_factory.mktemp("browser")) as found:
        yield found


@pytest.fixture
def opened(tab: Tab, full: str, tmp_path: Path) -> Tab:
    tab.open(written(full, tmp_path), 1440)
    return tab


def written(page: str, folder: Path) -> Path:
    path = folder / "report.html"
    path.write_text(page, encoding="utf-8")
    return path


def drawn(tab: Tab) -> list[str]:
    """The plots that were drawn and whose canvas is not blank."""
    found: list[str] = tab.see("""[...document.querySelectorAll('.plot')].filter((plot) => {
        const canvas = plot.querySelector('canvas');
        const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
        return Number(canvas.dataset.drawn) > 0 && new Set(data).size > 20;
    }).map((plot) => plot.id)""")
    return found


def pixels(tab: Tab, plot: str) -> str:
    return str(tab.see(f"document.querySelector('#{plot} canvas').toDataURL()"))


@needs_chromium
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("kind", ["full", "tiny", "nasty"])
def test_the_page_fits_and_is_drawn(
    tab: Tab, tmp_path: Path, kind: str, width: int, scheme: str
) -> None:
    report = tiny_report() if kind == "tiny" else full_report()
    page = written(report_page(renamed(report, NASTY) if kind == "nasty" else report), tmp_path)
    tab.open(page, width, scheme)
    assert tab.see("innerWidth") == width
    assert tab.see("document.documentElement.scrollWidth") <= width
    assert drawn(tab) == (PLOTS[:2] if kind == "tiny" else PLOTS)
    assert tab.see("document.querySelectorAll('b').length") == 0
    assert tab.complaints == []
    assert tab.requests == [page.as_uri()]


@needs_chromium
@pytest.mark.parametrize(("number", "axis"), [(0, "x"), (1, "y"), (2, "x")])
def test_intervals_are_drawn(opened: Tab, number: int, axis: str) -> None:
    opened.see(f"""(() => {{
        const {{ chart }} = reportPage.figures[{number}];
        Object.assign(chart.options.scales.{axis}, {{ min: -1, max: 1 }});
        chart.update();
    }})()""")
    before = pixels(opened, PLOTS[number])
    opened.see(f"""(() => {{
        const {{ chart }} = reportPage.figures[{number}];
        for (const dataset of chart.data.datasets) dataset.intervals = [];
        chart.update();
    }})()""")
    assert pixels(opened, PLOTS[number]) != before


@needs_chromium
def test_the_label_switch_changes_every_part(opened: Tab) -> None:
    before = [pixels(opened, plot) for plot in PLOTS]
    opened.see(f"document.querySelector('input[value={LABELS[2]}]').click()")
    opened.settle()
    assert all(pixels(opened, plot) != old for plot, old in zip(PLOTS, before, strict=True))
    shown = opened.see("[...document.querySelectorAll('.of-label')].filter(p => !p.hidden)"
                       ".map(p => p.dataset.label)")  # fmt: skip
    assert shown == [LABELS[2]] * 2
    assert LABELS[2] in opened.see("document.querySelector('#hour-plot canvas').ariaLabel")


@needs_chromium
def test_a_click_in_the_legend_hides_a_model_and_one_more_shows_it(opened: Tab) -> None:
    before, button = (
        pixels(opened, "hour-plot"),
        "document.querySelectorAll('#hour-plot button')[5]",
    )
    opened.see(f"{button}.click()")
    opened.settle()
    assert opened.see(f"{button}.getAttribute('aria-pressed')") == "false"
    assert opened.see("document.querySelector('#hour-plot canvas').dataset.drawn") == "5"
    assert pixels(opened, "hour-plot") != before
    opened.see(f"document.querySelector('input[value={LABELS[1]}]').click()")
    assert opened.see("document.querySelector('#hour-plot canvas').dataset.drawn") == "5"
    opened.see(f"document.querySelector('input[value={LABELS[0]}]').click(); {button}.click()")
    opened.settle()
    assert pixels(opened, "hour-plot") == before


@needs_chromium
def test_the_plots_follow_a_switch_of_scheme(opened: Tab) -> None:
    before = [pixels(opened, plot) for plot in PLOTS]
    opened.prefer("dark")
    opened.settle()
    assert all(pixels(opened, plot) != old for plot, old in zip(PLOTS, before, strict=True))
    opened.prefer("light")
    opened.settle()
    assert [pixels(opened, plot) for plot in PLOTS] == before


@needs_chromium
def test_a_column_is_sorted_by_its_head_from_the_keyboard(opened: Tab) -> None:
    head = "[...document.querySelectorAll('.of-label thead button')].find(b => "
    head += "b.textContent === 'log loss')"
    order = ("[...document.querySelector('.of-label tbody').rows]"
             ".map(row => row.cells[0].dataset.value)")  # fmt: skip
    opened.see(f"{head}.focus()")
    for kind in ("rawKeyDown", "char", "keyUp"):
        opened.tell("Input.dispatchKeyEvent", type=kind, key="Enter", code="Enter", text="\r",
                    windowsVirtualKeyCode=13)  # fmt: skip
    assert opened.see(f"{head}.closest('th').getAttribute('aria-sort')") == "ascending"
    assert set(opened.see(order)[:3]) == set(ROLES[:3]), "a log loss that is not known comes last"
    first = head.replace("log loss", "NDCG@10")
    opened.see(f"{first}.click()")
    opened.see(f"{first}.click()")
    assert opened.see(order) == [
        "random", "popularity", "popularity_1h", "champion_yesterday", "champion", "candidate",
    ]  # fmt: skip


@needs_chromium
def test_a_dimension_is_chosen_for_plot_and_table(opened: Tab) -> None:
    choose = "s => {{ s.value = '{}'; s.dispatchEvent(new Event('change')) }}"
    column = (
        "[...document.getElementById('segment-table').tBodies[0].rows]"
        ".map(row => row.cells[{}].innerText)"
    )
    values = column.format(0)
    assert opened.see(values) == list(DIMENSIONS["lifecycle"])
    opened.see(f"({choose.format('hour_of_day')})(document.getElementById('dimension'))")
    assert opened.see(values) == list(DIMENSIONS["hour_of_day"])
    opened.see(f"({choose.format('champion')})(document.getElementById('segment-role'))")
    opened.settle()
    assert opened.see("document.querySelector('#segment-plot .canvas').hidden")
    assert not opened.see("document.querySelector('#segment-plot .empty').hidden")
    assert set(opened.see(column.format(5))) == {"-"}
    assert opened.complaints == []


@needs_chromium
def test_calibration_has_logarithmic_axes_as_well(opened: Tab) -> None:
    before = pixels(opened, "calibration-plot")
    opened.see("document.getElementById('logarithmic').click()")
    opened.settle()
    assert pixels(opened, "calibration-plot") != before
    assert opened.complaints == []
