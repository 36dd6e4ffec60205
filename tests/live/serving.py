"""A service under way on this machine, for tests of its sockets, and what its clients say and hear.

Import this behind ``pytest.importorskip`` of the extra ``serve``."""

import asyncio
import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from streamllm.engine.loop import translate
from streamllm.live.access import Access
from streamllm.live.quotas import Quotas
from streamllm.live.server import STREAM, Application, Server, listening, server_of
from streamllm.live.service import Choice, Choices, Keeper, Service
from streamllm.models.loading import ModelConfig
from streamllm.models.model import StreamingModel
from streamllm.policies import WaitK
from streamllm.records import Example

TOKEN = "a token of more than 16 letters"


@pytest.fixture(scope="module")
def model() -> StreamingModel:
    return ModelConfig("bundled:tiny-en-de").load()


class Running:
    """A service under way, in a thread of its own."""

    def __init__(self, model: StreamingModel, quotas: Quotas, access: Access, keep: Callable[[str], Keeper] | None):
        choices = Choices({"waitk": Choice(lambda k: WaitK(int(k)), {"k": (1, 9)}, {"k": 3})})
        self.service = Service(model, choices, quotas=quotas, keep=keep)
        self.application = Application(self.service, access, "WaitK [text -> text]")
        self.server: Server = server_of(self.application)
        self._listener = listening("127.0.0.1", 0)
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=lambda: asyncio.run(self.server.serve([self._listener])))
        self._thread.start()

    @property
    def address(self) -> str:
        return f"ws://127.0.0.1:{self.port}{STREAM}"

    def connect(self, **given: Any) -> ClientConnection:
        return connect(self.address, open_timeout=60, **given)

    def get(self, path: str, **headers: str) -> tuple[int, str]:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def stop(self) -> None:
        if self._thread.is_alive():
            while not self.server.started:
                time.sleep(0.01)
            self.server.loop.call_soon_threadsafe(self.server.leave)
        self._thread.join(60)
        assert not self._thread.is_alive()


Serve = Callable[..., Running]


@pytest.fixture
def serve(model: StreamingModel) -> Iterator[Serve]:
    with ExitStack() as stops:

        def start(
            quotas: Quotas = Quotas(),
            access: Access = Access("127.0.0.1"),
            keep: Callable[[str], Keeper] | None = None,
        ) -> Running:
            running = Running(model, quotas, access, keep)
            stops.callback(running.stop)
            return running

        yield start


def say(socket: ClientConnection, kind: str, **values: Any) -> None:
    socket.send(json.dumps({"type": kind, **values}))


def hear(socket: ClientConnection) -> Any:
    return json.loads(socket.recv(timeout=60))


def until_end(socket: ClientConnection) -> list[Any]:
    found = [hear(socket)]
    while found[-1]["type"] != "end":
        found.append(hear(socket))
    return found


def words(messages: list[Any]) -> list[tuple[str, int]]:
    return [(message["unit"], message["delay"]) for message in messages if message["type"] == "write"]


def alone(model: StreamingModel, text: str, k: int = 3) -> list[tuple[str, int]]:
    trace = translate(model.session(), Example("1", text, ""), WaitK(k))
    read, found = 0, []
    for event in trace.events:
        read += event.kind in ("read", "forced_read")
        if event.kind in ("write", "extend"):
            found.append((event.text, read))
    return found


def faults(socket: ClientConnection) -> tuple[str, int | None]:
    """The error that is told, and the code of the close."""
    code = ""
    try:
        while True:
            message = hear(socket)
            if message["type"] == "error":
                code = message["code"]
    except ConnectionClosed as closed:
        return code, closed.rcvd.code if closed.rcvd else None
