"""The service's page in a real Chromium: what is typed is translated, whatever happens to the connection. Nothing is
said on the console, and nothing is asked of another host."""

import json
import math
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

pytest.importorskip("starlette", reason="the extra serve is not installed")
pytest.importorskip("uvicorn", reason="the extra serve is not installed")
pytest.importorskip("websockets", reason="the extra serve is not installed")
pytest.importorskip("playwright", reason="playwright is not installed (pip install playwright)")

from chromium import launched
from test_server import TOKEN, Running, alone

from streamllm.engine.loop import translate
from streamllm.engine.paradigms.documents import Sentences
from streamllm.engine.paradigms.revised import Revised
from streamllm.engine.recording import Recording
from streamllm.live.access import Access
from streamllm.live.protocol import answers
from streamllm.live.quotas import Quotas
from streamllm.live.told import Told
from streamllm.live.traces import keeping
from streamllm.metrics.latency import average_lagging, length_adaptive_average_lagging
from streamllm.models.loading import ModelConfig
from streamllm.models.model import StreamingModel
from streamllm.policies import WaitK
from streamllm.records import Event, Example, State, Trace
from streamllm.runs.load import load_traces
from streamllm.units import ends_sentence, pieces, split

pytestmark = pytest.mark.browser

Page = Any
Open = Callable[..., Page]
Serve = Callable[..., Running]

MAN = "A man is riding a bicycle."
DOG = "A brown dog is jumping over a fallen tree in the forest."
PATIENCE = 120_000  # ms; the machine may be busy


@pytest.fixture(scope="module")
def model() -> StreamingModel:
    return ModelConfig("bundled:tiny-en-de").load()


@pytest.fixture(scope="module")
def documents() -> StreamingModel:
    return ModelConfig("bundled:tiny-en-de").load(paradigm=Sentences(asks=False))


@pytest.fixture(scope="module")
def revised() -> StreamingModel:
    return ModelConfig("bundled:tiny-en-de").load(paradigm=Revised(asks=False))


@pytest.fixture
def serve(model: StreamingModel) -> Iterator[Serve]:
    with ExitStack() as stops:

        def start(with_model: StreamingModel = model, **given: Any) -> Running:
            given = {"quotas": Quotas(), "access": Access("127.0.0.1"), "keep": None} | given
            running = Running(with_model, **given)
            stops.callback(running.stop)
            return running

        yield start


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    try:
        with launched("--disable-background-networking") as found:
            yield found
    except FileNotFoundError as error:
        pytest.skip(str(error))


@pytest.fixture
def open_page(browser: Any) -> Iterator[Open]:
    """Opens the page of a service, and waits until its stream is open. At the end of the test, nothing may have been
    said on a console, but of connections that a test has broken, and nothing asked of another host."""
    said: list[str] = []
    contexts = []

    def listen(page: Page, here: str, breaks: bool) -> None:
        def console(message: Any) -> None:
            if not (breaks and "WebSocket connection to" in message.text):
                said.append(message.text)

        page.on("console", console)
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: request.url.startswith((here, "blob:")) or said.append(request.url))
        page.on(
            "websocket", lambda opened: opened.url.startswith(here.replace("http", "ws")) or said.append(opened.url)
        )

    def open_it(port: int, state: str = "open", breaks: bool = False, **options: Any) -> Page:
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        here = f"http://127.0.0.1:{port}/"
        listen(page, here, breaks)
        page.goto(here)
        assert page.url == here + "page/"
        page.wait_for_selector(f"#state[data-state={state}]")
        return page

    yield open_it
    for context in contexts:
        context.close()
    assert said == []


def type_in(page: Page, text: str) -> None:
    page.locator("#box").press_sequentially(text)


def until(page: Page, condition: str, arg: Any = None) -> None:
    """Wait for an expression of JavaScript. (Playwright's own way is forbidden by the policy of the page.)"""
    deadline = time.monotonic() + PATIENCE / 1000
    while not page.evaluate(condition, arg):
        assert time.monotonic() < deadline, (condition, page.inner_text("body"))
        page.wait_for_timeout(20)


def until_ended(page: Page, many: int) -> None:
    """So many traces are there."""
    until(page, f"/^{many} /.test(document.getElementById('traced').textContent)")


def targets(page: Page) -> list[str]:
    return page.locator("#rows .now").all_inner_texts()


def sources(page: Page) -> list[str]:
    return page.locator("#rows .source").all_inner_texts()


def translation(model: StreamingModel, text: str, k: int = 3) -> str:
    return translate(model.session(), Example("1", text, ""), WaitK(k)).prediction


def downloaded(page: Page, folder: Path) -> list[Trace]:
    """The traces as somebody has them who follows the page."""
    folder.mkdir()
    for button, name in (("#download", "predictions.jsonl"), ("#times", "timings.jsonl")):
        with page.expect_download() as download:
            page.click(button)
        assert download.value.suggested_filename == name
        download.value.save_as(folder / name)
    return load_traces(folder)


def shown_number(page: Page, name: str) -> float:
    return float(page.locator(f"#{name}").inner_text().replace("−", "-"))


# --- typed


def test_words_go_out_as_they_are_typed_and_enter_ends_the_sentence(
    serve: Serve, open_page: Open, model: StreamingModel
) -> None:
    page = open_page(serve().port)
    type_in(page, "A man is rid")
    until(page, "document.querySelectorAll('.source .read').length === 3")
    assert (sources(page), page.locator("#box").input_value()) == (["A man is"], "rid")
    assert targets(page)[0].split() == [word for word, delay in alone(model, MAN) if delay == 3]
    type_in(page, "ing a bicycle")
    page.keyboard.press("Enter")
    until_ended(page, 1)
    assert (sources(page), page.locator("#box").input_value()) == (["A man is riding a bicycle"], "")
    assert targets(page) == [translation(model, "A man is riding a bicycle")]


def test_what_is_not_whole_yet_may_be_translated_ahead(serve: Serve, open_page: Open, model: StreamingModel) -> None:
    page = open_page(serve().port)
    frames: list[dict[str, str]] = []
    page.on("websocket", lambda opened: opened.on("framesent", lambda payload: frames.append(json.loads(payload))))
    page.reload()
    page.wait_for_selector("#state[data-state=open]")

    def service_has() -> tuple[str, str]:
        """What is final, and what may still change."""
        final = pending = ""
        for frame in frames:
            kind, text = frame["type"].rpartition(".")[2], frame.get("text", "")
            final += pending + text if kind == "commit" else ""
            pending = pending + text if kind == "append" else pending if kind == "update" else ""
        return final, pending

    def halt(final: str, pending: str) -> None:
        deadline = time.monotonic() + PATIENCE / 1000
        while service_has() != (final, pending):
            assert time.monotonic() < deadline, service_has()
            page.wait_for_timeout(20)

    type_in(page, "A man is rid")
    halt(" A man is", " rid")
    type_in(page, "ing")
    halt(" A man is", " riding")
    type_in(page, " a bi")
    halt(" A man is riding a", " bi")
    page.locator("#box").fill("")
    halt(" A man is riding a", "")
    type_in(page, "bicycle.")
    page.keyboard.press("Enter")
    until_ended(page, 1)
    assert (sources(page), targets(page)) == ([MAN], [translation(model, MAN)])
    type_in(page, "A xy")
    halt(f" {MAN} A", " xy")
    page.locator("#box").fill("")
    page.click("#end")  # before that is told
    until_ended(page, 2)
    assert service_has() == (f" {MAN} A", "")
    assert sources(page)[1] == "A"


def test_what_is_pasted_goes_out_and_full_stops_end_its_sentences(
    serve: Serve, open_page: Open, model: StreamingModel
) -> None:
    page = open_page(serve().port)
    page.locator("#box").fill(f"{MAN} {DOG}\nMr. Smith")
    until_ended(page, 2)
    assert sources(page) == [MAN, DOG, "Mr."]  # which ends no sentence, and its last word may go on
    assert targets(page)[:2] == [translation(model, MAN), translation(model, DOG)]
    page.click("#end")
    until_ended(page, 3)
    assert sources(page)[2] == "Mr. Smith"
    page.locator("#stops").uncheck()
    page.locator("#box").fill(f"{MAN} {MAN}\n")
    until_ended(page, 4)
    assert sources(page)[3] == f"{MAN} {MAN}"


def test_a_text_plays_itself_and_can_be_stopped(serve: Serve, open_page: Open, model: StreamingModel) -> None:
    page = open_page(serve().port)
    page.get_by_text("Play a text", exact=True).click()
    page.fill("#text", f"{MAN}\n{DOG}")
    page.fill("#rate", "20")
    page.click("#play")
    until(page, "document.querySelectorAll('.source span').length > 2")
    page.keyboard.press("Escape")
    assert page.locator("#play").inner_text() == "Go on"
    page.click("#play")
    until_ended(page, 2)
    assert page.locator("#play").inner_text() == "Play"
    assert targets(page) == [translation(model, MAN), translation(model, DOG)]


def test_two_tabs_do_not_disturb_each_other(serve: Serve, open_page: Open, model: StreamingModel) -> None:
    running = serve()
    tabs = {MAN: open_page(running.port), DOG: open_page(running.port)}
    left = {text: text.split() for text in tabs}
    while any(left.values()):
        for text, page in tabs.items():
            if left[text]:
                type_in(page, f"{left[text].pop(0)} ")
    for text, page in tabs.items():
        until_ended(page, 1)
        assert (sources(page), targets(page)) == ([text], [translation(model, text)])


def test_the_policy_changes_between_sentences(serve: Serve, open_page: Open, model: StreamingModel) -> None:
    page = open_page(serve().port)
    type_in(page, "A man is ")
    page.fill("#policy [name=k]", "1")
    page.keyboard.press("Tab")
    until(page, "/waitk, k = 1/.test(document.getElementById('policy-hint').textContent)")
    type_in(page, "riding a bicycle. ")
    until_ended(page, 1)
    type_in(page, f"{DOG} ")
    until_ended(page, 2)
    assert targets(page) == [translation(model, MAN, 3), translation(model, DOG, 1)]
    assert page.locator("#rows .note").all_inner_texts() == ["waitk, k = 3", "waitk, k = 1"]
    page.fill("#policy [name=k]", "10")  # which is out of range, and stays here
    page.keyboard.press("Tab")
    type_in(page, f"{MAN} ")
    until_ended(page, 3)
    assert targets(page)[2] == translation(model, MAN, 1)


# --- latency


def test_lag_is_told_by_colour_and_by_thickness(serve: Serve, open_page: Open, model: StreamingModel) -> None:
    page = open_page(serve().port)
    page.fill("#policy [name=k]", "5")
    page.keyboard.press("Tab")
    type_in(page, f"{DOG} ")
    until_ended(page, 1)
    trace = translate(model.session(), Example("1", DOG, ""), WaitK(5))
    lags = [delay - place for place, delay in enumerate(trace.delays)]
    shades = [sum(lag >= step for step in (2, 4, 6, 9)) for lag in lags]
    found = page.locator("#rows .now .word")
    assert found.evaluate_all("all => all.map(word => Number(word.dataset.shade))") == shades
    assert page.locator("#stairs .cell").evaluate_all("all => all.map(cell => Number(cell.dataset.shade))") == shades
    styles = page.locator("#legend li").evaluate_all(
        "all => all.map(one => [getComputedStyle(one).borderBottomColor, getComputedStyle(one).borderBottomWidth])"
    )
    assert len({color for color, _ in styles}) == len({width for _, width in styles}) == 5


def test_latency_is_that_of_our_metrics(serve: Serve, open_page: Open, model: StreamingModel) -> None:
    page = open_page(serve().port)
    lags = []
    for number, text in enumerate((MAN, DOG), 1):
        type_in(page, f"{text} ")
        until_ended(page, number)
        trace = translate(model.session(), Example("1", text, ""), WaitK(3))
        lags.append(average_lagging(trace.delays, trace.source_units, len(trace.delays)))
        assert shown_number(page, "al") == pytest.approx(lags[-1], abs=0.006)
        assert shown_number(page, "read") == trace.source_units
        assert shown_number(page, "written") == len(trace.units)
    assert shown_number(page, "al-mean") == pytest.approx(sum(lags) / 2, abs=0.006)
    assert page.locator("#al-count").inner_text() == "mean of 2"
    assert 0 <= shown_number(page, "seconds") < 60


def test_figures_of_the_page_are_those_of_the_package(serve: Serve, open_page: Open) -> None:
    page = open_page(serve().port)
    chance = random.Random(0)
    cases = []
    for _ in range(300):
        source, written = chance.randint(0, 12), chance.randint(0, 12)
        delays = sorted(chance.randint(0, source + chance.randint(0, 1)) for _ in range(written))
        cases.append((delays, source, chance.randint(0, 12)))
    found = page.evaluate(
        """async cases => { const { averageLagging, lengthAdaptiveAverageLagging } = await import("/page/lagging.js");
        return cases.map(one => [averageLagging(...one), lengthAdaptiveAverageLagging(...one)]); }""",
        cases,
    )
    for case, values in zip(cases, found, strict=True):
        ours = [average_lagging(*case), length_adaptive_average_lagging(*case)]
        assert [float(value) for value in values] == pytest.approx(ours, abs=1e-9, nan_ok=True), case


def test_units_of_the_page_are_those_of_the_package(serve: Serve, open_page: Open) -> None:
    page = open_page(serve().port)
    texts = [
        "",
        " ",
        "a b",
        " a\tb ",
        "a\x1cb\x85c\u3000d",
        "我爱 你。",
        "OK go",
        "👩‍👩‍👧 läuft",
        "x\u200by",
        "\u00a0a",
    ]
    ends = [
        "ends.",
        "Mr.",
        "e.g.",
        "J.",
        '"Stop!"',
        "so",
        "U.S.A.",
        "好。",
        "wait…”",
        "(etc.)",
        "3.5",
        "z.B.",
        " ?",
        ".",
    ]
    found = page.evaluate(
        """async ([texts, ends]) => { const { pieces, split, endsSentence } = await import("/page/units.js");
        const befores = ["", "a", "a ", " "];
        return [texts.map(text => ["word", "character"].map(unit => [split(text, unit), ...befores.map(before =>
          pieces(text, unit, before))])), ends.map(endsSentence)]; }""",
        [texts, ends],
    )
    assert found[1] == list(map(ends_sentence, ends))
    for text, both in zip(texts, found[0], strict=True):
        for unit, values in zip(("word", "character"), both, strict=True):
            ours = [pieces(text, unit, before) for before in ("", "a", "a ", " ")]  # type: ignore[arg-type]
            assert values == [split(text, unit), *ours], (text, unit)  # type: ignore[arg-type]


# --- traces


def told_at_random(chance: random.Random, revises: bool) -> tuple[list[Told], State]:
    """What a sentence might be told."""
    found: list[Told] = []
    read, written, seconds = 0, 0, 0.0

    def tell(kind: str, text: str) -> None:
        nonlocal seconds
        seconds += chance.random()
        found.append(Told(0, "live-1", Event(kind, text, round(seconds, 6)), State(read, written, False)))

    for _ in range(chance.randint(1, 12)):
        read += 1
        tell(chance.choice(["read", "read", "forced_read"]), f"w{read}")
        units = [
            (chance.choice(["der", "die", "das"]), chance.choice(["", "", "!"])) for _ in range(chance.randint(0, 3))
        ]
        if revises:
            tell("shown", " ".join(word + more for word, more in units))
            if chance.random() < 0.7:
                continue
        for word, more in units:
            written += 1
            tell("write", word)
            if more:
                tell("extend", more)
        tell("sentence", str(read))
    tell("stop", "end_token")
    return found, State(read, written, True)


@pytest.mark.parametrize("revises", [False, True])
def test_traces_of_the_page_are_those_of_the_package(
    serve: Serve, open_page: Open, tmp_path: Path, revises: bool
) -> None:
    page = open_page(serve().port)
    chance = random.Random(1)
    happened = [told_at_random(chance, revises) for _ in range(100)]
    messages = [
        [
            json.loads(
                json.dumps(
                    {"type": each.__struct_config__.tag}
                    | {name: getattr(each, name) for name in each.__struct_fields__}
                )
            )
            for one in told
            for each in answers(one)
        ]
        for told, _ in happened
    ]
    lines = page.evaluate(
        """async all => { const { Recording } = await import("/page/recording.js");
        return all.map((messages, i) => { const recording = new Recording("word");
          for (const message of messages) recording.add(message);
          const read = messages.filter(one => one.type === "read").map(one => one.unit);
          return recording.lines(`live-${i}`, read.join(" ")); }); }""",
        messages,
    )
    for which, name in enumerate(("predictions.jsonl", "timings.jsonl")):
        (tmp_path / name).write_text("".join(json.dumps(pair[which]) + "\n" for pair in lines), encoding="utf-8")
    for number, (trace, (told, state)) in enumerate(zip(load_traces(tmp_path), happened, strict=True)):
        source = " ".join(one.event.text for one in told if "read" in one.event.kind)
        recording = Recording(Example(f"live-{number}", source, ""))
        for one in told:
            recording.add(one.event, one.state)
        assert trace == recording.trace(state.read, {})


def test_a_downloaded_trace_is_the_one_that_the_service_keeps(serve: Serve, open_page: Open, tmp_path: Path) -> None:
    keep = partial(keeping, tmp_path, {"policy": {"_target_": "WaitK", "k": 3}}, {}, "word", "word")()
    page = open_page(serve(keep=keep).port)
    type_in(page, f"{MAN} ")
    until_ended(page, 1)
    type_in(page, f"{DOG} ")
    until_ended(page, 2)
    kept = load_traces(tmp_path / "live-1" / "stream-1")
    found = downloaded(page, tmp_path / "page")
    assert [trace.id for trace in found] == ["live-1", "live-2"]
    for ours, theirs in zip(found, kept, strict=True):
        for name in ("source", "prediction", "units", "delays", "source_units", "reference"):
            assert getattr(ours, name) == getattr(theirs, name)
        assert ours.elapsed == pytest.approx(theirs.elapsed, abs=1e-6)
        told = [event.kind for event in theirs.events if event.kind not in ("end", "draft", "limit")]
        assert [event.kind for event in ours.events] == told


def test_a_trace_is_copied_and_all_is_cleared(serve: Serve, open_page: Open) -> None:
    running = serve()
    page = open_page(running.port, permissions=["clipboard-read", "clipboard-write"])
    type_in(page, f"{MAN} ")
    until_ended(page, 1)
    page.click("#copy")
    until(page, "document.getElementById('traced').textContent === 'copied'")
    assert json.loads(page.evaluate("navigator.clipboard.readText()"))["source"] == MAN
    page.click("#clear")
    page.wait_for_selector("#nothing:visible")
    assert page.locator("#download").is_disabled()
    assert targets(page) == []


# --- documents, and output that may change


def test_a_document_has_a_row_for_each_sentence_and_one_end(
    serve: Serve, open_page: Open, documents: StreamingModel, tmp_path: Path
) -> None:
    page = open_page(serve(documents).port)
    assert page.locator("#end").inner_text() == "End document"
    type_in(page, f"{MAN} {DOG} A man")
    page.keyboard.press("Enter")  # only ends the word
    until(page, "document.querySelectorAll('#rows li').length === 3")
    assert sources(page) == [MAN, DOG, "A man"]
    page.keyboard.press("Control+Enter")
    until_ended(page, 1)
    text = f"{MAN} {DOG} A man"
    trace = translate(documents.session(), Example("1", text, ""), WaitK(3), living_on=documents.living_on)
    assert " ".join(targets(page)).split() == trace.prediction.split()
    assert page.locator("#al-count").inner_text() == "mean of 3"
    (found,) = downloaded(page, tmp_path / "page")
    assert (found.source, found.units, found.delays) == (text, trace.units, trace.delays)


def test_what_may_change_is_shown_as_such_until_it_is_final(
    serve: Serve, open_page: Open, revised: StreamingModel, tmp_path: Path
) -> None:
    page = open_page(serve(revised).port)
    assert page.locator("#legend-draft").is_visible()
    type_in(page, "A man is riding a ")
    until(page, "document.querySelectorAll('.source .read').length === 5")
    assert page.locator("#rows .draft").inner_text() != ""
    assert page.locator("#rows .now .word").count() == 0
    assert page.locator("#stairs .cell.draft").count() == len(page.locator("#rows .draft").inner_text().split())
    type_in(page, "bicycle. ")
    until(page, "document.querySelectorAll('#rows .now .word').length > 2")
    page.click("#end")
    until_ended(page, 1)
    trace = translate(revised.session(), Example("1", MAN, ""), WaitK(3), living_on=revised.living_on)
    assert targets(page) == [trace.prediction]
    assert page.locator("#rows .draft").count() == 0
    (found,) = downloaded(page, tmp_path / "page")
    assert (found.units, found.delays) == (trace.units, trace.delays)


# --- the reading mode


def test_the_reading_mode_shows_what_has_stood_for_a_second(serve: Serve, open_page: Open) -> None:
    """Of 200 outputs at random, revised again and again."""
    page = open_page(serve().port)
    chance = random.Random(2)
    histories = []
    for revises in [False, True] * 100:
        words: list[str] = []
        history: list[tuple[int, list[str]]] = []
        for at in sorted(chance.sample(range(1, 8000), chance.randint(1, 15))):
            keep = chance.randint(0, len(words)) if revises else len(words)
            words = words[:keep] + chance.choices("abc", k=chance.randint(0, 3))
            history.append((at, words))
        histories.append(history)
    shown = page.evaluate(
        """async histories => { const { Stable } = await import("/page/stable.js");
        return histories.map(history => { const stable = new Stable(1000); const seen = [];
          for (let now = 0; now < 9500; now += 50) {
            for (const [at, words] of history)
              if (at > now - 50 && at <= now) stable.say(words, at, words === history.at(-1)[1]);
            seen.push([...stable.at(now)]); }
          return [seen, stable.next]; }); }""",
        histories,
    )
    for number, (history, (seen, further)) in enumerate(zip(histories, shown, strict=True)):
        assert (seen[-1], further) == (history[-1][1], math.inf)
        for step, (before, words) in enumerate(zip([[], *seen], seen, strict=False)):
            if number % 2 == 0:
                assert words[: len(before)] == before  # it only grows
            if words != before:
                now = step * 50
                stood = [[], *(output for at, output in history if at <= now - 1000)][-1]
                since = [output for at, output in history if now - 1000 < at <= now]
                assert all(output[: len(words)] == words for output in [stood, *since])


def test_the_reading_mode_is_a_second_late_and_loses_nothing(
    serve: Serve, open_page: Open, model: StreamingModel
) -> None:
    page = open_page(serve().port)
    page.get_by_text("Reading", exact=True).click()
    page.evaluate(
        """() => { window.seen = []; new MutationObserver(() => { const [now, calm] = ["now", "calm"].map(name =>
          document.querySelector(`#rows .${name}`)?.textContent ?? "");
          window.seen.push([performance.now(), now, calm]); })
          .observe(document.getElementById("rows"), { childList: true, subtree: true, characterData: true }); }"""
    )
    type_in(page, f"{MAN} ")
    until_ended(page, 1)
    expected = translation(model, MAN)
    assert page.locator("#rows .now").is_hidden()
    until(page, "text => document.querySelector('#rows .calm').textContent === text", arg=expected)
    seen = page.evaluate("window.seen")
    written: dict[str, float] = {}
    for at, now, _ in seen:
        written.setdefault(now, at)
    for (_, _, before), (at, _, calm) in pairwise(seen):
        assert calm.startswith(before)
        if calm != before:
            assert at - min(since for text, since in written.items() if text.startswith(calm)) > 900


# --- when it breaks


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def start_service(port: int, *keys: str) -> "subprocess.Popen[str]":
    words = [sys.executable, "-m", "streamllm.cli.serve", f"port={port}", "policy=waitk", "k=3", *keys]
    service = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert service.stdout is not None
    assert "serving" in service.stdout.readline()
    return service


@pytest.mark.long
@pytest.mark.parametrize("keys", [(), ("paradigm=sentences",)])
def test_after_a_kill_the_page_connects_again_and_no_text_is_lost(
    open_page: Open, model: StreamingModel, tmp_path: Path, keys: tuple[str, ...]
) -> None:
    port = free_port()
    with ExitStack() as services:
        first = services.enter_context(start_service(port, *keys))
        services.callback(first.kill)
        page = open_page(port, breaks=True)
        page.evaluate("document.getElementById('stops').checked = false")
        if keys:
            type_in(page, f"{MAN} ")
            until(page, "document.querySelectorAll('#rows li').length === 2")
        type_in(page, "A man is rid")
        until(page, "document.querySelectorAll('#rows li:last-child .now .word').length > 0")
        first.send_signal(signal.SIGKILL)
        page.wait_for_selector("#state[data-state=waiting]")
        assert "No connection" in page.locator("#fault [role=alert]").inner_text()
        assert "Next attempt in" in page.locator("#fault-wait").inner_text()
        type_in(page, "ing a bicycle. ")  # while nobody listens
        until(page, "text => [...document.querySelectorAll('#rows .source')].at(-1).innerText === text", MAN)
        second = services.enter_context(start_service(port, *keys))
        services.callback(second.kill)
        page.evaluate("document.getElementById('again').click()")  # at the latest now
        page.wait_for_selector("#state[data-state=open]")
        assert page.locator("#fault").is_hidden()
        until(page, "document.querySelectorAll('#rows li:last-child .waits').length === 0")
        page.click("#end")
        until_ended(page, 2 if keys else 1)
        until(page, "document.querySelectorAll('.sent').length === 0")
        rows = 2 if keys else 1
        assert (sources(page), targets(page)) == ([MAN] * rows, [translation(model, MAN)] * rows)
        assert [trace.source for trace in downloaded(page, tmp_path / "page")] == [MAN] * rows
        second.terminate()
        second.wait(60)
        page.wait_for_selector("#state[data-state=waiting]")


def test_the_end_of_the_service_is_told_and_its_streams_go_on_with_the_next(
    serve: Serve, open_page: Open, model: StreamingModel
) -> None:
    running = serve()
    page = open_page(running.port, breaks=True)
    type_in(page, "A man is ")
    until(page, "document.querySelectorAll('.now .word').length > 0")
    page.evaluate(
        """() => { window.told = []; const title = document.getElementById("fault-title");
          new MutationObserver(() => window.told.push(title.textContent)).observe(title, { childList: true }); }"""
    )
    running.stop()
    page.wait_for_selector("#state[data-state=waiting]")
    assert page.evaluate("window.told")[0] == "The service has ended."  # and then that there is no connection
    assert sources(page) == ["A man is"]


def test_a_stream_that_fell_asleep_opens_again_with_the_next_word(
    serve: Serve, open_page: Open, model: StreamingModel
) -> None:
    page = open_page(serve(quotas=Quotas(idle=2)).port, "asleep")
    assert "opens again with the next word" in page.locator("#fault [role=alert]").inner_text()
    page.locator("#box").fill(f"{MAN} ")
    until_ended(page, 1)
    assert targets(page) == [translation(model, MAN)]


def test_a_page_that_finds_no_room_waits_for_some(serve: Serve, open_page: Open, model: StreamingModel) -> None:
    running = serve(quotas=Quotas(streams=1))
    with running.connect():
        page = open_page(running.port, "waiting")
        assert "All places are taken" in page.locator("#fault [role=alert]").inner_text()
    while running.service.open_streams:
        page.wait_for_timeout(20)
    page.click("#again")
    page.wait_for_selector("#state[data-state=open]")


def test_words_that_come_too_fast_go_out_more_slowly_then(serve: Serve, open_page: Open, model: StreamingModel) -> None:
    page = open_page(serve(quotas=Quotas(words_per_second=10, burst=2)).port)
    page.locator("#box").fill(f"{DOG} {DOG} ")
    until_ended(page, 2)
    assert targets(page) == [translation(model, DOG)] * 2


def test_a_token_is_asked_for_and_kept_for_this_tab_alone(serve: Serve, open_page: Open) -> None:
    running = serve(access=Access("127.0.0.1", TOKEN))
    page = open_page(running.port, "stopped")
    assert "wants a token" in page.locator("#fault [role=alert]").inner_text()
    for token, state in (("not this one, I fear", "stopped"), (TOKEN, "open")):
        assert page.evaluate("document.activeElement.id") == "token"
        page.locator("#token").fill(token)
        page.keyboard.press("Enter")
        until(page, "state => document.getElementById('state').dataset.state === state", arg=state)
        assert ("not the service's token" in page.locator("#fault-title").inner_text()) == (state == "stopped")
        until(page, "!document.querySelector('#state[data-state=connecting]')")
    assert page.evaluate("[localStorage.length, document.cookie, location.search]") == [0, "", ""]
    page.reload()
    page.wait_for_selector("#state[data-state=open]")
    other = open_page(running.port, "stopped")
    assert other.locator("#token").is_visible()


def test_each_fault_of_the_protocol_has_words_on_the_page() -> None:
    table = (ROOT / "docs" / "serve.md").read_text("utf-8").partition("| code | close |")[2].partition("\n\n")[0]
    codes = (
        {code for line in table.splitlines() for code in re.findall(r"`(\w+)`", line.split("|")[1])} if table else set()
    )
    page = (ROOT / "streamllm" / "live" / "page" / "faults.js").read_text("utf-8")
    assert len(codes) > 8
    assert codes <= set(re.findall(r"^  (\w+): ", page, re.MULTILINE))


# --- for everybody


CONTRAST = """element => {
  const linear = c => { c /= 255; return c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; };
  const light = color => { const [r, g, b] = color.match(/[\\d.]+/g).map(Number).map(linear);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const style = getComputedStyle(element);
  const ink = light(element.dataset.shade ? element.closest("svg") ? style.fill : style.borderBottomColor
    : element.closest("svg") ? style.fill : style.color);
  let behind = element;
  while (/rgba\\(.*, 0\\)/.test(getComputedStyle(behind).backgroundColor)) behind = behind.parentElement;
  const page = light(getComputedStyle(behind).backgroundColor);
  return (Math.max(ink, page) + 0.05) / (Math.min(ink, page) + 0.05);
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_and_lag_stand_out_in_both_schemes(serve: Serve, open_page: Open, scheme: str) -> None:
    page = open_page(serve().port, color_scheme=scheme)
    type_in(page, f"{DOG} A")
    until_ended(page, 1)
    for text in (
        "h1",
        "h1 span",
        "#state",
        ".heads span",
        ".source .read",
        ".now .word",
        ".note",
        ".hint",
        "#end",
        "#box",
        "#legend li",
        "h2 span:last-child",
        "#figures dt",
        "#figures small",
        "#stairs text",
        "summary",
        "#view span:last-child",
        "button:disabled",
    ):
        for found in page.locator(text).all()[:3]:
            if found.is_visible() and text != "#legend li":
                assert found.evaluate(CONTRAST.replace("element.dataset.shade", "false")) >= 4.5, text
    lines = page.locator("#legend li").evaluate_all(f"all => all.map({CONTRAST})")
    assert min(lines) >= 3
    assert lines == sorted(lines)  # the later, the further from the page


def test_colours_are_those_of_the_system_unless_chosen(serve: Serve, open_page: Open) -> None:
    page = open_page(serve().port, color_scheme="dark")
    ground = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(ground)
    page.emulate_media(color_scheme="light")
    light = page.evaluate(ground)
    assert light != dark
    page.locator("#theme").select_option("dark")
    assert page.evaluate(ground) == dark
    page.reload()
    assert page.evaluate(ground) == dark
    assert page.locator("#theme").input_value() == "dark"
    page.locator("#theme").select_option("")
    assert page.evaluate(ground) == light


@pytest.mark.parametrize("width", [320, 390, 800, 1280])
def test_no_window_scrolls_sideways(serve: Serve, open_page: Open, width: int) -> None:
    page = open_page(serve().port, viewport={"width": width, "height": 844})
    type_in(page, "A " + "very" * 30 + " ")
    page.locator("#box").fill(f"{DOG} {' '.join(['word'] * 60)}. ")
    until_ended(page, 2)
    for summary in page.locator("summary").all():
        summary.click()
    for view in ("Reading", "Immediate"):
        page.get_by_text(view, exact=True).click()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.get_by_text("Play a text", exact=True).click()
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_all_can_be_done_with_the_keyboard(serve: Serve, open_page: Open, model: StreamingModel) -> None:
    page = open_page(serve().port)
    assert page.evaluate("document.activeElement.id") == "box"
    page.keyboard.type(MAN)
    page.keyboard.press("Enter")
    until_ended(page, 1)
    reached = []
    for _ in range(40):
        page.keyboard.press("Tab")
        name, outline = page.evaluate(
            """() => { const here = document.activeElement; const shown = here.closest(".switch")
              ? here.nextElementSibling : here;
              const name = here === document.body ? "BODY" : here.id || here.name || here.textContent;
              return [name, getComputedStyle(shown).outlineStyle]; }"""
        )
        if name == "BODY":
            continue
        if name in reached:
            break
        reached.append(name)
        assert outline != "none", name
    assert set(reached) == {
        "view", "theme", "transcript", "way", "box", "end", "stops", "policy-name", "k", "download", "times", "copy",
        "clear", "What these are", "How to open it",
    }  # fmt: skip
    page.locator("input[value=immediate]").focus()
    page.keyboard.press("ArrowRight")
    page.locator("#rows .calm").wait_for(state="visible")  # drawn with the next frame
    page.locator("input[value=type]").focus()
    page.keyboard.press("ArrowRight")
    page.locator("#text").wait_for(state="visible")


def test_everything_has_a_name_and_nothing_is_too_small_to_hit(serve: Serve, open_page: Open) -> None:
    page = open_page(serve().port)
    page.evaluate("for (const hidden of document.querySelectorAll('[hidden]')) hidden.hidden = false")
    nameless = page.evaluate(
        """() => [...document.querySelectorAll("input, select, textarea, button, summary, [role=img]")].filter(one =>
          !(one.labels?.length || (one.tagName !== "SELECT" && one.textContent.trim()) || one.ariaLabel
            || document.getElementById(one.getAttribute("aria-labelledby"))))
          .map(one => one.outerHTML)"""
    )
    assert nameless == []
    small = page.evaluate(
        """() => [...document.querySelectorAll("button, select, textarea, summary, input")].filter(one => {
          const shown = one.closest("label") ?? one; const box = shown.getBoundingClientRect();
          return box.width < 24 || box.height < 20; }).map(one => one.outerHTML)"""
    )
    assert small == []
    lost = page.evaluate(
        """() => [...document.querySelectorAll("*")].flatMap(one => ["for", "aria-labelledby", "aria-describedby"]
          .flatMap(name => (one.getAttribute(name) ?? "").split(" ").filter(Boolean)))
          .filter(id => document.querySelectorAll(`#${id}`).length !== 1)"""
    )
    assert lost == []
    assert page.evaluate("document.documentElement.lang") == "en"
    levels = page.evaluate("[...document.querySelectorAll('h1, h2, h3')].map(one => Number(one.tagName[1]))")
    assert levels[0] == 1
    assert set(levels[1:]) == {2}


def test_a_reader_is_told_whole_sentences_and_no_single_words(
    serve: Serve, open_page: Open, model: StreamingModel
) -> None:
    page = open_page(serve().port)
    assert page.locator("#rows[aria-live], #transcript[aria-live], #transcript[role=log]").count() == 0
    type_in(page, "A man is ")
    until(page, "document.querySelectorAll('.now .word').length > 0")
    assert page.locator("#announced").inner_text() == ""
    type_in(page, "riding a bicycle. ")
    until_ended(page, 1)
    assert page.locator("#announced").text_content() == translation(model, MAN)


# --- its files


def test_its_files_come_from_here_alone_and_hold_nothing_inline(serve: Serve) -> None:
    folder = ROOT / "streamllm" / "live" / "page"
    for path in folder.iterdir():
        text = path.read_text("utf-8")
        assert not re.findall(r"(?:https?:)?//(?!www\.w3\.org/2000/svg)[a-z0-9.-]+\.[a-z]+", text), path.name
    text = (folder / "index.html").read_text("utf-8")
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", text)
    running = serve()
    with running.connect():
        from urllib.request import Request, urlopen

        with urlopen(f"http://127.0.0.1:{running.port}/page/") as answer:
            assert answer.headers["Content-Security-Policy"].startswith("default-src 'self'; ")
            assert "unsafe" not in answer.headers["Content-Security-Policy"]
        with urlopen(Request(f"http://127.0.0.1:{running.port}/", headers={"Accept": "text/html"})) as answer:
            assert answer.url.endswith("/page/")


def test_text_of_any_kind_is_text(serve: Serve, open_page: Open) -> None:
    page = open_page(serve().port)
    nasty = "<b>bold</b> <img src=x onerror=alert(1)> & \"quotes\" 'more' </script>"
    page.locator("#box").fill(f"{nasty}\n")
    until_ended(page, 1)
    assert sources(page) == [nasty]
    assert page.locator("#rows b, #rows img").count() == 0
