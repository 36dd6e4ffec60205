"""The report in a real Chromium: it opens without a word on the console and without a request, and can be used."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from chromium import launched
from document_traces import documents
from test_compare import sentences, trace
from test_report import NASTY, config, run

from streamllm.records import Event, Trace
from streamllm.report import write_report

pytest.importorskip("playwright.sync_api", reason="playwright is not installed (pip install playwright)")

pytestmark = pytest.mark.browser

Page = Any
Open = Callable[..., Page]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    try:
        with launched() as found:
            yield found
    except FileNotFoundError as error:
        pytest.skip(str(error))


@pytest.fixture
def open_page(browser: Any) -> Iterator[Open]:
    """Opens a page; at the end of the test, nothing may have been said on a console or asked of a network."""
    said: list[str] = []
    pages = []

    def open_it(path: Path, **options: Any) -> Page:
        page = browser.new_page(**options)
        page.set_default_timeout(120_000)  # ms; the machine may be busy
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: request.url == path.as_uri() or said.append(request.url))
        page.goto(path.as_uri())
        pages.append(page)
        return page

    yield open_it
    for page in pages:
        page.close()
    assert said == []


def forced(one: Trace) -> Trace:
    """The same with the events of wait-1 and, at the end, forced reads of the rest of the source."""
    words = one.source.split()
    events: list[Event] = []
    read = 0
    for unit, delay in zip(one.units, one.delays, strict=True):
        events += [Event("read", word) for word in words[read:delay]]
        events.append(Event("write", unit))
        read = delay
    events += [Event("forced_read", word) for word in words[read:]]
    return Trace(**{**one.__dict__, "events": tuple(events)})


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four runs over 60 sentences: in the table full, waitk k=1, k=3 and k=10."""
    folder = tmp_path_factory.mktemp("report")
    for k, noise, lag in ((1, 0.7, 1), (3, 0.4, 3), (10, 0.2, 5)):
        run(folder / "outputs", list(map(forced, sentences(60, noise, lag, seed=k))), config(k=k))
    run(folder / "outputs", sentences(60, 0.2, 6, seed=9), config("full", None))
    write_report([folder / "outputs"], folder / "page.html", samples=20)
    return folder / "page.html"


def column(page: Page, table: str, index: int, also: str = "") -> list[str]:
    """The first line of each cell of a column, top to bottom."""
    cells = page.locator(f"#{table} > tbody > tr:visible:not(.detail){also} > :nth-child({index + 1})")
    return [text.split("\n")[0] for text in cells.all_inner_texts()]


def number(text: str) -> float:
    return float(text.replace("−", "-"))


def head(page: Page, table: str, name: str) -> Any:
    return page.locator(f"#{table} th").get_by_role("button", name=name, exact=True)


def chosen(page: Page) -> list[str]:
    """The settings of the runs that are shown."""
    return column(page, "runs", 2, ".shown")


# --- runs


def test_runs_are_sorted_by_a_click_and_turned_over_by_another(open_page: Open, report: Path):
    page = open_page(report)
    head(page, "runs", "BLEU").click()
    scores = list(map(number, column(page, "runs", 3)))
    assert scores == sorted(scores, reverse=True)
    assert page.locator('#runs th[aria-sort="descending"]').inner_text().startswith("BLEU")
    head(page, "runs", "BLEU").click()
    assert list(map(number, column(page, "runs", 3))) == sorted(scores)
    assert page.locator("#runs th[aria-sort=ascending]").count() == 1


def test_settings_are_sorted_by_their_numbers_and_missing_ones_come_last(open_page: Open, report: Path):
    page = open_page(report)
    head(page, "runs", "Setting").click()
    assert column(page, "runs", 2) == ["k=1", "k=3", "k=10", ""]
    head(page, "runs", "Setting").click()
    assert column(page, "runs", 2) == ["k=10", "k=3", "k=1", ""]


@pytest.mark.parametrize(
    ("query", "left"),
    [("waitk", ["k=1", "k=3", "k=10"]), ("WAITK k=3", ["k=3"]), ("laal>=0 full", [""]), ("bleu<0", []), ("x<y", [])],
)
def test_runs_are_filtered_by_words_and_conditions(open_page: Open, report: Path, query: str, left: list[str]):
    page = open_page(report)
    page.locator("#run-filter").fill(query)
    assert column(page, "runs", 2) == left
    assert page.locator("#run-count").inner_text() == f"{len(left)} of 4 runs"
    page.locator("#run-filter").fill("")
    assert len(column(page, "runs", 2)) == 4


def test_condition_compares_numbers(open_page: Open, report: Path):
    page = open_page(report)
    lags = list(map(number, column(page, "runs", 6)))
    limit = sum(sorted(lags)[1:3]) / 2
    page.locator("#run-filter").fill(f"laal<{limit}")
    assert list(map(number, column(page, "runs", 6))) == [lag for lag in lags if lag < limit]


# --- sentences


def test_sentences_are_sorted_by_each_column(open_page: Open, report: Path):
    page = open_page(report)
    page.locator("#page-size").select_option("100")
    for index, name in enumerate(["#", "Words", "BLEU A", "BLEU B", "BLEU, B − A", "LAAL A", "LAAL B", "LAAL, B − A"]):
        head(page, "sentences", name).click()
        for _ in range(2):
            found = list(map(number, column(page, "sentences", index + (index > 1))))
            down = page.locator("#sentences th[aria-sort=descending]").count() == 1
            assert found == sorted(found, reverse=down)
            assert len(found) == 60
            head(page, "sentences", name).click()


def test_difference_is_that_of_the_two_runs(open_page: Open, report: Path):
    page = open_page(report)
    page.locator("#latency").select_option("laal")
    for a, b, difference in ((3, 4, 5), (6, 7, 8)):
        columns = [list(map(number, column(page, "sentences", index))) for index in (a, b, difference)]
        for one, other, between in zip(*columns, strict=True):
            assert other - one == pytest.approx(between, abs=0.11)
    assert head(page, "sentences", "LAAL A").count() == 1


def test_sentences_are_filtered_by_text_and_by_conditions_on_both_runs(open_page: Open, report: Path):
    page = open_page(report)
    page.locator("#page-size").select_option("100")
    page.locator("#sentence-filter").fill("katze bleu<50 d.bleu>0")
    texts = page.locator("#sentences tr.row").all_inner_texts()
    assert texts
    scores = zip(column(page, "sentences", 3), column(page, "sentences", 5), strict=True)
    assert all(number(bleu) < 50 and number(difference) > 0 for bleu, difference in scores)
    assert page.locator("#sentence-count").inner_text() == f"{len(texts)} of 60 sentences"
    page.locator("#sentence-filter").fill("no such words")
    assert page.locator("#page-number").inner_text() == "nothing found"
    assert page.locator("#next").is_disabled()
    page.locator("#sentence-filter").fill("forced>0")
    assert 0 < page.locator("#sentences tr.row").count() < 60


def test_pages_are_turned_and_a_filter_goes_back_to_the_first(open_page: Open, report: Path):
    page = open_page(report)
    assert column(page, "sentences", 0) == [str(n) for n in range(1, 26)]
    page.get_by_role("button", name="Last page").click()
    assert column(page, "sentences", 0) == [str(n) for n in range(51, 61)]
    assert page.locator("#page-number").inner_text() == "51–60, page 3 of 3"
    assert page.locator("#next").is_disabled()
    page.locator("#previous").click()
    assert column(page, "sentences", 0)[0] == "26"
    page.locator("#sentence-filter").fill("e")
    assert page.locator("#page-number").inner_text().startswith("1–25")


# --- which runs are shown


def test_boxes_selects_and_points_choose_the_same_runs(open_page: Open, report: Path):
    page = open_page(report)
    assert len(chosen(page)) == 2
    page.locator("#runs input:not(:checked)").first.check()
    assert len(chosen(page)) == page.locator(".wide .rings circle").count() == 3
    page.locator(".wide .hits circle").first.click()
    assert len(chosen(page)) == page.locator(".wide .rings circle").count() == 2
    page.locator("#run-a").select_option(label="waitk k=3")
    page.locator("#run-b").select_option(label="waitk k=1")
    assert {"k=1", "k=3"} <= set(chosen(page))
    assert sorted(page.locator(".wide .hits text").all_text_contents())[-2:] == ["A", "B"]


def test_taking_the_other_run_swaps_the_two(open_page: Open, report: Path):
    page = open_page(report)
    before = [page.locator(f"#run-{letter}").input_value() for letter in "ab"]
    page.locator("#run-a").select_option(before[1])
    assert [page.locator(f"#run-{letter}").input_value() for letter in "ba"] == before


def test_single_run_has_no_columns_of_another_and_one_is_always_shown(open_page: Open, report: Path):
    page = open_page(report)
    page.locator("#run-b").select_option("")
    assert len(chosen(page)) == 1
    assert page.locator("#sentences th").count() == 5
    page.locator("#runs input:checked").click()
    assert len(chosen(page)) == 1


# --- staircases


def test_sentence_opens_by_keyboard_keeps_the_focus_and_closes_again(open_page: Open, report: Path):
    page = open_page(report)
    sentence = page.locator("#sentences .sentence").nth(2)
    sentence.focus()
    page.keyboard.press("Enter")
    assert sentence.get_attribute("aria-expanded") == "true"
    assert page.evaluate("document.activeElement.className") == "sentence"
    assert page.locator(".stairs svg").count() == 2
    page.keyboard.press("Enter")
    assert sentence.get_attribute("aria-expanded") == "false"
    assert page.locator(".stairs svg").count() == 0


def test_staircase_has_a_mark_for_each_write_under_the_last_word_read(open_page: Open, report: Path):
    page = open_page(report)
    page.locator("#sentences tr.row").first.click()
    data = page.evaluate("({run: runs[state.a], source: unitsOf(0)})")
    figure = page.locator(".stairs figure").first
    marks = figure.locator(".write").evaluate_all("found => found.map(one => +one.getAttribute('x') + 5)")
    assert marks == [24 * (delay - 0.5) for delay in data["run"]["delays"][0]]
    words = figure.locator("svg > text").all_text_contents()
    assert words == [*data["source"], *data["run"]["prediction"][0].split()]
    assert figure.locator(".forced").count() == len(data["run"]["forced"][0])


def test_forced_reads_are_marked(open_page: Open, report: Path):
    page = open_page(report)
    page.locator("#sentence-filter").fill("forced>=2")
    page.locator("#sentences tr.row").first.click()
    drawn = (
        page.locator(".stairs figure")
        .first.locator(".forced")
        .evaluate_all("found => found.map(one => one.getAttribute('d').match(/[-.0-9]+/g).slice(0, 2).map(Number))")
    )
    places = page.evaluate("runs[state.a].forced[runs[state.a].at[state.open]]")
    assert drawn == [[24 * read + 7.5, 21 * written - 5.5] for read, written in places]
    assert len(drawn) >= 2
    assert "a forced READ" in page.locator(".detail").inner_text()


def test_words_of_a_staircase_stay_inside_its_picture(open_page: Open, report: Path):
    page = open_page(report)
    page.locator("#sentences tr.row").first.click()
    outside = page.locator(".stairs svg").first.evaluate(
        """picture => { const frame = picture.getBoundingClientRect();
        return [...picture.querySelectorAll("text")].filter(text => { const box = text.getBoundingClientRect();
          return box.left < frame.left - 1 || box.right > frame.right + 1 || box.top < frame.top - 1; }).length; }"""
    )
    assert outside == 0


def test_run_that_lacks_a_sentence_is_left_out_of_its_staircases(open_page: Open, tmp_path: Path):
    traces = sentences(4, 0.3, 2)
    run(tmp_path / "outputs", traces, config(k=1))
    run(tmp_path / "outputs", traces[:2], config(k=3))
    write_report([tmp_path / "outputs"], tmp_path / "page.html", samples=0)
    page = open_page(tmp_path / "page.html")
    page.locator("#run-a").select_option(label="waitk k=1")
    assert column(page, "sentences", 4)[2:] == ["–", "–"]
    page.locator("#sentences tr.row").nth(3).click()
    assert page.locator(".stairs svg").count() == 1
    page.locator("#run-a").select_option(label="waitk k=3")
    assert page.locator("#sentences tr.row").count() == 2


# --- text of any kind


def test_markup_is_shown_as_text(open_page: Open, tmp_path: Path):
    one = trace("1", NASTY, NASTY, [1] * len(NASTY.split()), source=NASTY)
    settings = config(dataset="<img src=x onerror=console.log(1)>") | {"policy": {"_target_": "my.<b>X</b>"}}
    run(tmp_path / "outputs", [one], settings | {"name": "nasty"})
    write_report([tmp_path / "outputs"], tmp_path / "page.html", samples=0)
    page = open_page(tmp_path / "page.html")
    page.locator("#sentences tr.row").click()
    assert page.locator("#sentences .sentence").evaluate("found => found.textContent") == NASTY
    assert page.locator("body b, body img").count() == page.locator(".stairs figcaption > b").count() == 1
    assert "<img src=x onerror=console.log(1)>" in page.locator("h1").inner_text()


@pytest.mark.parametrize(
    ("source", "units"),
    [
        ("我爱你。", ["我", "爱", "你", "。"]),
        ("👩‍👩‍👧 läuft z̈", ["👩‍👩‍👧", "läuft", "z̈"]),
        ("שלום, עולם!", ["שלום,", "עולם!"]),
    ],
)
def test_words_of_any_script_stand_whole_on_the_axes(open_page: Open, tmp_path: Path, source: str, units: list[str]):
    one = Trace("1", source, source, tuple(units), (1,) * len(units), (0.0,) * len(units), (), len(units), source)
    run(tmp_path / "outputs", [one], config())
    write_report([tmp_path / "outputs"], tmp_path / "page.html", samples=0)
    page = open_page(tmp_path / "page.html")
    page.locator("#sentences tr.row").click()
    assert page.locator(".stairs svg > text").all_text_contents() == units * 2
    first, *_ = page.locator(".stairs svg > text").all()[len(units) :]
    assert first.get_attribute("direction") == ("rtl" if "ש" in source else None)
    end, edge = first.evaluate("word => [word.getBBox().x + word.getBBox().width, 0]")
    assert end == pytest.approx(edge - 8, abs=1.5)  # flush with its row, whatever its direction


# --- light, dark, narrow


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_in_both_schemes(open_page: Open, report: Path, scheme: str):
    page = open_page(report, color_scheme=scheme)
    page.locator("#sentences tr.row").first.click()
    for text in ("body", "thead button", ".hint", ".written", "#runs tr.shown th", ".stairs svg text"):
        ratio = page.locator(text).first.evaluate(CONTRAST)
        assert ratio >= (3 if "shown" in text else 4.5), text


CONTRAST = """element => {
  const linear = c => { c /= 255; return c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; };
  const light = color => { const [r, g, b] = color.match(/[\\d.]+/g).map(Number).map(linear);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const style = getComputedStyle(element);
  const ink = light(element.closest("svg") ? style.fill : style.color);
  let behind = element;
  while (/rgba\\(.*, 0\\)/.test(getComputedStyle(behind).backgroundColor)) behind = behind.parentElement;
  const page = light(getComputedStyle(behind).backgroundColor);
  return (Math.max(ink, page) + 0.05) / (Math.min(ink, page) + 0.05);
}"""


def test_narrow_window_scrolls_tables_and_not_the_page(open_page: Open, report: Path):
    page = open_page(report, viewport={"width": 360, "height": 700})
    page.locator("#sentences .sentence").first.click()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_a_narrow_window_shows_bleu_and_laal_of_the_runs_at_once(tmp_path: Path, open_page: Open):
    for k in (1, 3):
        more = {"model": {"path": f"models/one-that-has-a-name-{k}"}, "seed": k}
        run(tmp_path, sentences(10, 0.3, k), config(k=k, **more))
    write_report([tmp_path], tmp_path / "page.html", samples=10)
    page = open_page(tmp_path / "page.html", viewport={"width": 390, "height": 800})
    for name in ("BLEU", "LAAL"):
        box = head(page, "runs", name).bounding_box()
        assert box["x"] + box["width"] <= 390, name
    head(page, "runs", "LAAL").click()
    lags = [number(text) for text in column(page, "runs", 4)]
    assert lags == sorted(lags)
    wide = open_page(tmp_path / "page.html", viewport={"width": 1280, "height": 800})
    assert head(wide, "runs", "seed").bounding_box()["x"] < head(wide, "runs", "BLEU").bounding_box()["x"]


def test_the_latency_of_sentences_that_is_shown_first_is_laal(open_page: Open, report: Path):
    assert open_page(report).locator("#latency").input_value() == "laal"


def test_curve_of_a_narrow_window_is_drawn_for_it_and_can_be_read(open_page: Open, report: Path):
    for width, kind, other in ((1280, "wide", "narrow"), (390, "narrow", "wide")):
        page = open_page(report, viewport={"width": width, "height": 800})
        assert page.locator(f".layers.{kind}").is_visible()
        assert not page.locator(f".layers.{other}").is_visible()
        scale = (
            page.locator(f".layers.{kind} > svg")
            .nth(1)
            .evaluate("svg => svg.getBoundingClientRect().width / svg.viewBox.baseVal.width")
        )
        assert 9 * scale > 9  # pixels of the smallest type
        page.locator(f".layers.{kind} .hits circle").first.click()
        assert len(chosen(page)) in (1, 3)


def test_network_is_refused_by_the_page_itself(browser: Any, report: Path):
    page = browser.new_page()
    page.set_default_timeout(120_000)
    failed: list[str] = []
    page.on("requestfailed", lambda request: failed.append(request.failure))
    page.goto(report.as_uri())
    image = "new Promise(done => Object.assign(new Image(), {onload: done, onerror: () => done('no'), src: '%s'}))"
    assert page.evaluate(image % "https://example.org/x.png") == "no"
    assert page.evaluate("fetch('https://example.org/').then(() => 'yes', () => 'no')") == "no"
    page.close()
    assert set(failed) == {"csp"}


def test_document_opens_with_its_path_its_lag_and_its_sentences(tmp_path: Path, open_page: Open):
    for k in (1, 4):
        run(tmp_path, documents(2, k=k, noise=0.3), config(k=k))
    write_report([tmp_path], tmp_path / "page.html", samples=10)
    page = open_page(tmp_path / "page.html")
    page.locator("#sentences tr.row").nth(0).click()
    assert page.locator("tr.detail svg.document").count() == 2
    assert page.locator("tr.detail svg.document").nth(0).locator("circle.end").count() == 4
    assert page.locator("tr.detail svg.document").nth(0).locator("path.lag").count() == 1
    assert page.locator("tr.detail .pieces tbody tr").count() == 4
    assert page.locator("#sentence-count").text_content() == "2 documents"
