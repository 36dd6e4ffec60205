"""The command as a program of its own: how it ends, and what it leaves."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

pytest.importorskip("starlette", reason="the extra serve is not installed")
pytest.importorskip("uvicorn", reason="the extra serve is not installed")
pytest.importorskip("websockets", reason="the extra serve is not installed")

from serving import faults, hear, say, until_end
from websockets.sync.client import ClientConnection, connect

from streamllm.runs.load import load_traces

pytestmark = [pytest.mark.long, pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")]

COMMIT = "input_text_buffer.commit"


class Program:
    def __init__(self, folder: Path):
        keys = ["policy=waitk", "k=1", "port=0", f"traces={folder / 'traces'}", f"log={folder / 'log.jsonl'}"]
        command = [sys.executable, "-m", "streamllm", "serve", *keys]
        self.process = subprocess.Popen(command, cwd=ROOT, env=os.environ, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        found = re.search(r"http://127\.0\.0\.1:(\d+)", self.process.stdout.readline())
        assert found is not None
        self.port = int(found[1])

    def connect(self, path: str = "/v1/stream") -> ClientConnection:
        return connect(f"ws://127.0.0.1:{self.port}{path}", open_timeout=60)


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Program]:
    started = Program(tmp_path)
    try:
        yield started
    finally:
        started.process.kill()
        started.process.communicate()


def lines(path: Path) -> list[Any]:
    """Each is whole."""
    text = path.read_text(encoding="utf-8")
    assert text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


def test_killed_in_the_middle_all_that_was_told_is_on_disk(program: Program, tmp_path: Path) -> None:
    with ExitStack() as closes:
        sockets = [closes.enter_context(program.connect()) for _ in range(3)]
        names = [hear(each)["stream"] for each in sockets]
        told: list[list[Any]] = []
        for each in sockets:
            say(each, COMMIT, text="A woman sits.", final=True)
            told.append(until_end(each))
            say(each, COMMIT, text="Two dogs run, and")
        for each, messages in zip(sockets, told, strict=True):
            messages += [hear(each) for _ in range(5)]
        program.process.send_signal(signal.SIGKILL)
        program.process.wait(60)
    for name, messages in zip(names, told, strict=True):
        folder = tmp_path / "traces" / "live-1" / name
        kept = lines(folder / "events.jsonl")
        heard = [(each["type"], each.get("unit", each.get("reason"))) for each in messages]
        assert (
            heard
            == [(each["kind"].replace("stop", "end"), each["text"]) for each in kept if each["kind"] != "end"][
                : len(heard)
            ]
        )
        (trace,) = load_traces(folder)
        assert trace.source == "A woman sits."
        assert list(trace.units) == [
            each["unit"] for each in messages if each["type"] == "write" and each["sentence"] == 0
        ]
    assert [each["event"] for each in lines(tmp_path / "log.jsonl")][:4] == ["started", *["opened"] * 3]


def test_at_a_signal_each_stream_gets_its_end_before_its_socket_is_closed(program: Program, tmp_path: Path) -> None:
    with program.connect() as under_way, program.connect() as rests, program.connect("/v1/mt") as utterances:
        hear(under_way)
        hear(rests)
        say(under_way, COMMIT, text="A man")
        while hear(under_way)["type"] != "write":
            pass
        say(utterances, "init", protocol_version=1, source_lang="en", target_lang="de")
        hear(utterances)
        program.process.send_signal(signal.SIGTERM)
        message = hear(under_way)
        while message["type"] != "end":
            message = hear(under_way)
        assert (message["reason"], message["read"]) == ("shutdown", 2)
        assert faults(under_way) == faults(rests) == faults(utterances) == ("", 1001)
    assert program.process.wait(60) == 0
    found = [each["event"] for each in lines(tmp_path / "log.jsonl")]
    assert found[0] == "started"
    assert found[-1] == "stopped"
    assert found.count("opened") == found.count("closed") == 3


def test_the_log_says_who_was_refused_and_nothing_of_what_was_said(program: Program, tmp_path: Path) -> None:
    with program.connect("/v1/stream?token=secret") as socket:
        hear(socket)
        say(socket, COMMIT, text="A woman sits.", final=True)
        until_end(socket)
        socket.send("confidential")
        assert faults(socket) == ("bad_message", 4400)
    program.process.send_signal(signal.SIGTERM)
    program.process.wait(60)
    found = lines(tmp_path / "log.jsonl")
    (sentence,) = [each for each in found if each["event"] == "sentence"]
    assert (sentence["reason"], sentence["read"]) == ("end_token", 3)
    (refused,) = [each for each in found if each["event"] == "refused"]
    assert (refused["code"], refused["close"], refused["path"]) == ("bad_message", 4400, "/v1/stream")
    assert "secret" not in json.dumps(found)
    assert "woman" not in json.dumps(found)
    assert "confidential" not in json.dumps(found)
