"""AlignAtt4LLM's protocol for translation servers: words and an unstable tail in, text that only grows out."""

import json
import os
import subprocess
import time
import venv
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("starlette", reason="the extra serve is not installed")
pytest.importorskip("uvicorn", reason="the extra serve is not installed")
pytest.importorskip("websockets", reason="the extra serve is not installed")

from serving import TOKEN, Running, Serve, alone, faults, hear, model, serve
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from streamllm.live.access import Access
from streamllm.live.quotas import Quotas
from streamllm.live.server import UTTERANCES
from streamllm.models.model import StreamingModel

__all__ = ["model", "serve"]

TEXT = "Two dogs run, and a child plays with a ball on the beach."


def opened(running: Running, query: str = "") -> ClientConnection:
    return connect(f"ws://127.0.0.1:{running.port}{UTTERANCES}{query}", open_timeout=60)


def init(socket: ClientConnection, **more: Any) -> Any:
    message = {"type": "init", "protocol_version": 1, "source_lang": "en", "target_lang": "de", "overrides": {"x": 1}}
    socket.send(json.dumps(message | more))
    return hear(socket)


def update(
    socket: ClientConnection, seq: int, text: str, tail: str = "", final: bool = False, utterance: int = 0
) -> None:
    words = [[word, 100.0 * i, None] for i, word in enumerate(text.split())]
    unstable = {"words": [[word, None, None] for word in tail.split()]}
    message = {"seq": seq, "utterance_id": utterance, "words": words, "clock_ms": 5.0, "is_final": final}
    socket.send(json.dumps({"type": "update", "tail": unstable} | message))


def written(model: StreamingModel, text: str, read: int | None = None) -> str:
    """What is written once so many units have been read."""
    found = ""
    for unit, delay in alone(model, text):
        if read is None or delay <= read:
            found += ("" if unit[0] in ",." and found else " " if found else "") + unit
    return found


def test_text_only_grows_and_ends_as_a_run_has_it(serve: Serve, model: StreamingModel) -> None:
    with opened(serve()) as socket:
        assert init(socket) == {
            "type": "init_ok",
            "protocol_version": 1,
            "direction": "en-de",
            "preset": "waitk",
            "model": "qwen2",
        }
        for utterance in (0, 1):
            shown, words = "", TEXT.split()
            for n in range(1, len(words)):
                update(socket, n, " ".join(words[:n]), " ".join(words[n : n + 2]), utterance=utterance)
                message = hear(socket)
                assert (message["type"], message["seq"], message["utterance_id"]) == ("translation", n, utterance)
                assert message["committed_text"] == shown + message["committed_delta"]
                assert not message["final"]
                shown = message["committed_text"]
                assert shown == written(model, TEXT, n)
            update(socket, 90, TEXT, final=True, utterance=utterance)
            last = hear(socket)
            assert (last["final"], last["committed_text"], last["committed_delta"]) == (True, written(model, TEXT), "")
            assert last["stop_reason"] == "end_token"


def test_the_unstable_words_are_drafted_and_committed_without_the_model(serve: Serve, model: StreamingModel) -> None:
    running = serve()
    counts = running.service.streams.counts
    with opened(running) as socket:
        init(socket)
        update(socket, 1, "Two dogs", "run, and a")
        first = hear(socket)
        deadline = time.monotonic() + 60
        while not first["buffer_text"]:  # which is made when nothing else is to be done
            assert time.monotonic() < deadline
            update(socket, 2, "Two dogs", "run, and a")
            first = hear(socket)
        assert first["committed_text"] == ""
        steps = counts.steps
        update(socket, 3, "Two dogs run, and a")
        second = hear(socket)
        assert (second["committed_text"], second["buffer_text"]) == (first["buffer_text"], "")
        assert counts.steps == steps
        assert second["committed_text"] == written(model, TEXT, 5)


def test_words_that_were_read_and_change_are_put_right_at_the_end(serve: Serve, model: StreamingModel) -> None:
    with opened(serve()) as socket:
        init(socket)
        update(socket, 1, "Two cats run,")
        shown = hear(socket)["committed_text"]
        assert shown
        update(socket, 2, "Two dogs run, and")
        message = hear(socket)
        assert message["committed_text"].startswith(shown)
        update(socket, 3, TEXT, final=True)
        assert hear(socket)["committed_text"] == written(model, TEXT)


def test_after_a_reconnect_it_goes_on_from_what_was_shown(serve: Serve, model: StreamingModel) -> None:
    running = serve()
    with opened(running) as socket:
        init(socket)
        update(socket, 1, "Two dogs run, and")
        shown = hear(socket)["committed_text"]
    with opened(running) as socket:
        init(socket, accepted_target_prefix=shown, history=[["a", "b"]])
        update(socket, 1, "Two dogs run, and a child")
        message = hear(socket)
        assert message["committed_text"] == shown + message["committed_delta"] == written(model, TEXT, 6)


def test_newer_updates_replace_those_that_wait_and_finals_never(serve: Serve, model: StreamingModel) -> None:
    with opened(serve()) as socket:
        init(socket)
        for n in range(1, 6):
            update(socket, n, " ".join(TEXT.split()[:n]))
        update(socket, 6, TEXT, final=True)
        update(socket, 7, "A woman sits.", final=True, utterance=1)
        messages = [hear(socket)]
        while messages[-1]["seq"] != 7:
            messages.append(hear(socket))
        finals = [(each["seq"], each["committed_text"]) for each in messages if each["final"]]
        assert finals == [(6, written(model, TEXT)), (7, written(model, "A woman sits."))]
        update(socket, 8, "late", utterance=1)
        assert hear(socket)["code"] == "processing_failed"
        update(socket, 9, "A woman sits.", final=True, utterance=2)
        assert hear(socket)["final"]


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("no JSON", "bad_protocol"),
        ('{"type": "init", "protocol_version": 2, "source_lang": "en", "target_lang": "de"}', "bad_protocol"),
        ('{"type": "update", "seq": 1, "utterance_id": 0, "words": []}', "bad_protocol"),
        ('{"type": "init", "protocol_version": 1}', "bad_protocol"),
        ('{"type": "init", "protocol_version": 1, "source_lang": "en", "target_lang": "xx"}', "unsupported_direction"),
        (b"\x00\x00", "binary"),
    ],
)
def test_what_does_not_fit_is_told_and_closed(serve: Serve, message: str | bytes, code: str) -> None:
    running = serve()
    with opened(running) as socket:
        socket.send(message)
        told = hear(socket)
        assert (told["type"], told["code"]) == ("error", code)
        if code == "unsupported_direction":
            assert told["supported"] == ["en-de", "de-en"]
        with pytest.raises(ConnectionClosed):
            hear(socket)
    while running.service.open_streams:
        time.sleep(0.01)


def test_it_wants_the_token_and_has_the_same_limits(serve: Serve) -> None:
    running = serve(Quotas(streams=1), Access("127.0.0.1", TOKEN))
    with opened(running) as socket:
        assert faults(socket) == ("token", 4401)
    shown = "?token=" + TOKEN.replace(" ", "%20")
    with opened(running, shown) as socket, opened(running, shown) as second:
        assert init(socket)["type"] == "init_ok"
        assert faults(second) == ("busy", 1013)


def test_at_the_end_of_the_service_it_takes_leave(serve: Serve) -> None:
    running = serve()
    with opened(running) as socket:
        init(socket)
        running.stop()
        assert faults(socket) == ("", 1001)


# --- WhisperLiveKit's own client

WHISPERLIVEKIT = "whisperlivekit==0.2.26"


@pytest.fixture(scope="module")
def their_python(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of an environment with the client and nothing that it does not import for this: no PyTorch."""
    kept = os.environ.get("STREAMLLM_SIMULEVAL")
    if "simuleval" not in request.config.option.markexpr and kept is None:
        pytest.skip("installs packages: pytest -m simuleval")
    folder = (Path(kept) if kept else tmp_path_factory.mktemp("tools")) / "whisperlivekit"
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
        command = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-deps"]
        done = subprocess.run([*command, WHISPERLIVEKIT, "websockets"], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"cannot install {WHISPERLIVEKIT}: {done.stderr.strip().splitlines()[-1]}")
    return python


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.simuleval
def test_whisperlivekits_client_translates_two_sentences(
    serve: Serve, model: StreamingModel, their_python: Path
) -> None:
    running = serve()
    texts = [TEXT, "A woman sits in the garden."]
    command = [str(their_python), str(Path(__file__).parent / "whisperlivekit_client.py")]
    given = json.dumps({"url": f"ws://127.0.0.1:{running.port}{UTTERANCES}", "texts": texts})
    done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["finals"] == [written(model, text) for text in texts]
    assert len(said["partials"]) > 3
    for partial in said["partials"]:  # what a viewer has seen is never taken back
        assert any(written(model, text).startswith(partial) for text in texts)
