"""Bad messages, each with a clear error, close or status of its own, while another stream goes on undisturbed."""

import json
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest

pytest.importorskip("starlette", reason="the extra serve is not installed")
pytest.importorskip("uvicorn", reason="the extra serve is not installed")
pytest.importorskip("websockets", reason="the extra serve is not installed")

from serving import TOKEN, Running, alone, faults, hear, model, say, until_end, words
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection

from streamllm.live.access import Access
from streamllm.live.quotas import Quotas
from streamllm.live.server import STREAM
from streamllm.models.model import StreamingModel

__all__ = ["model"]

TEXT = "A man is riding a bicycle."
QUOTAS = Quotas(message_bytes=8000, words_per_second=10, bytes_per_second=2000, burst=10, unread=60)
APPEND, COMMIT = "input_text_buffer.append", "input_text_buffer.commit"
End = tuple[str, int | None]
"""The code of the error, and that of the close; None where the stream stays open."""


@pytest.fixture(scope="module")
def services(model: StreamingModel) -> Iterator[Callable[[str], Running]]:
    """By what is special about them; each is started once."""
    found: dict[str, Running] = {}
    special = {
        "": (QUOTAS, Access("127.0.0.1")),
        "token": (QUOTAS, Access("127.0.0.1", TOKEN)),
        "impatient": (Quotas(idle=0.5, unsent=4), Access("127.0.0.1")),
    }
    with ExitStack() as stops:

        def service(kind: str) -> Running:
            if kind not in found:
                found[kind] = Running(model, *special[kind], None)
                stops.callback(found[kind].stop)
            return found[kind]

        yield service


@dataclass(frozen=True)
class Bad:
    """What is sent, and how it ends. ``send`` has the accepted stream, or the service."""

    name: str
    send: Callable[[ClientConnection], Any] | None = None
    end: End | int = ("bad_message", 4400)
    service: str = ""
    connect: Callable[[Running], End | int] | None = None


def sends(name: str, message: str | bytes, *end: Any) -> Bad:
    return Bad(name, lambda socket: socket.send(message), end or ("bad_message", 4400))  # type: ignore[arg-type]


def says(name: str, kind: str, *end: Any, **values: Any) -> Bad:
    return sends(name, json.dumps({"type": kind, **values}), *end)


def opened(running: Running, *lines: str, path: str = STREAM) -> socket.socket:
    """A socket that has asked for an upgrade in these lines."""
    bare = socket.create_connection(("127.0.0.1", running.port), timeout=60)
    host = f"Host: 127.0.0.1:{running.port}"
    bare.sendall("\r\n".join([f"GET {path} HTTP/1.1", host, "Connection: Upgrade", *lines, "", ""]).encode())
    return bare


UPGRADE = ("Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==")


def status(*lines: str, path: str = STREAM) -> Callable[[Running], int]:
    def asked(running: Running) -> int:
        with opened(running, *lines, path=path) as bare:
            return int(bare.recv(12).split()[1])

    return asked


def frame(first: int, body: bytes = b"", masked: bool = True) -> bytes:
    size = (
        bytes([len(body) | 128 * masked])
        if len(body) < 126
        else bytes([126 | 128 * masked]) + struct.pack(">H", len(body))
    )
    return bytes([first]) + size + (bytes(4) if masked else b"") + body  # with zeros, the body stays as it is


def raw(*frames: bytes) -> Callable[[Running], End]:
    """Frames of one's own making; the code of the close."""

    def played(running: Running) -> End:
        with opened(running, *UPGRADE) as bare:
            got = b""
            while b"session.created" not in got:
                got += bare.recv(65536)
            for each in frames:
                bare.sendall(each)
            got = b""
            while data := bare.recv(65536):
                got += data
            assert got[0] == 0x88, got
            return "", struct.unpack(">H", got[2:4])[0]

    return played


def leaves_without_a_word(running: Running) -> End:
    """In the middle of a sentence."""
    with running.connect() as gone:
        hear(gone)
        say(gone, COMMIT, text="A man is")
        hear(gone)
        gone.socket.shutdown(socket.SHUT_RDWR)
    return "", None


def half_open(running: Running) -> End:
    """Begins to ask, and never ends."""
    bare = socket.create_connection(("127.0.0.1", running.port))
    bare.sendall(f"GET {STREAM} HTTP/1.1\r\nHost: ".encode())
    time.sleep(0.05)
    bare.close()
    return "", None


def told(running: Running, **given: Any) -> End:
    with running.connect(**given) as socket:
        return faults(socket)


def refused(running: Running, **given: Any) -> int:
    try:
        with running.connect(**given):
            return 101
    except InvalidStatus as error:
        return error.response.status_code


def reads_nothing(socket: ClientConnection) -> None:
    say(socket, "session.update", policy={"k": 9})
    hear(socket)
    say(socket, COMMIT, text="a b c d e f g h i")  # nine reads are told at once, and four may wait


def appends(times: int, size: int) -> Callable[[ClientConnection], None]:
    def send(socket: ClientConnection) -> None:
        for _ in range(times):
            say(socket, APPEND, text="a" * size)

    return send


WRONG: End = ("wrong_choice", None)
BAD = [
    # No JSON
    sends("prose", "no JSON"),
    sends("nothing", ""),
    sends("spaces", "   "),
    sends("cut off", '{"type": "input_text_buffer.com'),
    sends("two at once", '{"type": "input_text_buffer.clear"}{"type": "input_text_buffer.clear"}'),
    sends("deep", "[" * 5000),
    sends("deep objects", '{"a":' * 1500),
    sends("single quotes", "{'type': 'input_text_buffer.clear'}"),
    sends("not a number", '{"type": "session.update", "policy": {"k": NaN}}'),
    sends("a mark of byte order", '\ufeff{"type": "input_text_buffer.clear"}'),
    sends("a control character", '{"type": "input_text_buffer.append", "text": "\x01"}'),
    # JSON, and no message
    sends("a list", "[]"),
    sends("null", "null"),
    sends("a number", "42"),
    sends("a text", '"input_text_buffer.clear"'),
    sends("an empty object", "{}"),
    # Unknown events
    says("sound", "input_audio_buffer.append", audio="AAAA"),
    says("a request for text", "response.create"),
    says("what the service says", "session.created"),
    says("an update of another protocol", "update", words=[]),
    sends("type null", '{"type": null}'),
    sends("type of a number", '{"type": 7}'),
    # Wrong fields
    sends("no text", '{"type": "input_text_buffer.append"}'),
    says("text null", APPEND, text=None),
    says("text of a number", APPEND, text=5),
    says("text of a list", COMMIT, text=["a"]),
    sends("half a character", '{"type": "input_text_buffer.append", "text": "\\ud800"}'),
    says("final of a text", COMMIT, text="a", final="yes"),
    says("an event's id of an object", APPEND, text="a", event_id={}),
    says("a policy of a text", "session.update", policy="waitk"),
    says("a policy of a list", "session.update", policy=["waitk"]),
    says("a number of a list", "session.update", policy={"k": [1]}),
    says("a number of a truth", "session.update", policy={"k": True}),
    says("a token of a number", "session.update", token=5),
    sends("a number beyond all", '{"type": "session.update", "policy": {"k": 1e999}}'),
    # Choices: the stream stays
    says("an unknown policy", "session.update", *WRONG, policy={"name": "os.system"}),
    says("a target", "session.update", *WRONG, policy={"_target_": "os.system"}),
    says("a number too high", "session.update", *WRONG, policy={"k": 10}),
    says("a whole number of 400 digits", "session.update", *WRONG, policy={"k": int("9" * 400)}),
    says("a fraction", "session.update", *WRONG, policy={"k": 2.5}),
    says("a number as a text", "session.update", *WRONG, policy={"k": "3"}),
    # Frames
    sends("binary", b"\x00\x01", "binary", 1003),
    sends("an empty binary frame", b"", "binary", 1003),
    sends("JSON as binary", b'{"type": "input_text_buffer.clear"}', "binary", 1003),
    says("a huge frame", APPEND, "", 1009, text="a" * 9000),
    Bad("a frame without a mask", end=("", 1002), connect=raw(frame(0x81, b"{}", masked=False))),
    Bad("a frame of no kind", end=("", 1002), connect=raw(frame(0x83))),
    Bad("a continuation of nothing", end=("", 1002), connect=raw(frame(0x80, b"{}"))),
    Bad("reserved bits", end=("", 1002), connect=raw(frame(0xC1, b"{}"))),
    Bad("a ping that is too long", end=("", 1002), connect=raw(frame(0x89, b"a" * 130))),
    Bad("no UTF-8", end=("", 1007), connect=raw(frame(0x81, b"\xff\xfe"))),
    Bad("huge in parts", end=("", 1009), connect=raw(*(frame(first, b"a" * 3000) for first in (0x01, 0x00, 0x80)))),
    # Too much, too little
    Bad("much that is not final", appends(5, 1990), ("too_much", 1009)),
    Bad("many characters", lambda socket: [say(socket, COMMIT, text="a" * 7000) for _ in range(4)], ("too_fast", 4429)),
    says("many words", COMMIT, "too_fast", 4429, text="a " * 120),
    says("many words that wait", COMMIT, "too_fast", 4429, text="a " * 90),
    Bad("silence", lambda socket: None, ("idle", 4408), "impatient"),
    Bad("a slow reader", reads_nothing, ("too_slow", 4408), "impatient"),
    Bad("a client that is gone", end=("", None), connect=leaves_without_a_word),
    Bad("a half-open socket", end=("", None), connect=half_open),
    # Who may not
    Bad("no token", lambda socket: say(socket, APPEND, text="a"), ("token", 4401), "token"),
    Bad("a wrong token", lambda socket: say(socket, "session.update", token=TOKEN[:-1]), ("token", 4401), "token"),
    Bad(
        "a wrong header",
        None,
        ("token", 4401),
        "token",
        lambda it: told(it, additional_headers={"Authorization": "Bearer x"}),
    ),
    Bad("a foreign page", None, ("origin", 4403), "", lambda it: told(it, origin="https://evil.example")),
    Bad("a page of no origin", None, ("origin", 4403), "", lambda it: told(it, origin="null")),
    # No WebSocket
    Bad("a request of a page", None, 404, "", status()),
    Bad("another version", None, 400, "", status(*UPGRADE[:1], "Sec-WebSocket-Version: 8", *UPGRADE[2:])),
    Bad("no key", None, 400, "", status(*UPGRADE[:2])),
    Bad("another path", None, 403, "", status(*UPGRADE, path="/v1/nothing")),
]


def test_there_are_more_than_fifty() -> None:
    assert len({bad.name for bad in BAD}) == len(BAD) >= 50


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.name.replace(" ", "-"))
def test_a_bad_message_ends_clearly_and_undisturbs_others(
    services: Callable[[str], Running], model: StreamingModel, bad: Bad
) -> None:
    running = services(bad.service)
    header = {"Authorization": f"Bearer {TOKEN}"} if bad.service == "token" else {}
    with running.connect(additional_headers=header) as good:
        hear(good)
        say(good, COMMIT, text="A man is riding")
        heard: list[Any] = []
        if bad.connect is not None:
            assert bad.connect(running) == bad.end
        else:
            assert bad.send is not None and isinstance(bad.end, tuple)
            with running.connect() as socket:
                if bad.service != "token":
                    hear(socket)
                bad.send(socket)
                if bad.service == "impatient":  # who says something stays
                    for _ in range(12):
                        say(good, "input_text_buffer.clear")
                        time.sleep(0.05)
                if bad.end[1] is None:
                    assert (message := hear(socket))["code"] == bad.end[0], message
                    say(socket, COMMIT, text=TEXT, final=True)
                    assert words(until_end(socket)) == alone(model, TEXT)
                else:
                    assert faults(socket) == bad.end
        say(good, COMMIT, text="a bicycle.", final=True)
        heard += until_end(good)
        assert words(heard) == alone(model, TEXT)


def test_words_after_the_end_are_another_sentence(services: Callable[[str], Running], model: StreamingModel) -> None:
    with services("").connect() as socket:
        hear(socket)
        say(socket, COMMIT, text="A woman sits.", final=True)
        say(socket, COMMIT, final=True)
        say(socket, COMMIT, text=TEXT, final=True)
        assert words(until_end(socket)) == alone(model, "A woman sits.")
        assert until_end(socket)[-1]["reason"] == "empty"
        assert words(until_end(socket)) == alone(model, TEXT)


def test_after_all_of_them_nothing_is_left(services: Callable[[str], Running]) -> None:
    for kind in ("", "token", "impatient"):
        service = services(kind).service
        deadline = time.monotonic() + 60
        while service.open_streams or service.streams.under_way:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert service.failed is None
