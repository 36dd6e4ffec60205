"""A client of the service (docs/serve.md); it needs the package ``websockets`` and nothing else of ours. Offered as
`streamllm.client`.

    with Client("ws://127.0.0.1:12321/v1/stream") as client:
        for word in "A man is riding a bicycle.".split():
            client.send(word)
        client.end()
        print(*(message["unit"] for message in client.sentence() if message["type"] == "write"))
"""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, Self


class Client:
    """One stream.

    Args:
        address: such as ``ws://127.0.0.1:12321/v1/stream``.
        token: where the service wants one.
        policy: such as ``{"name": "waitk", "k": 5}``; None takes the service's own.

    Attributes:
        session: the service's first message: what may be chosen, and what units are.

    Raises: what `websockets.sync.client.connect` raises; RuntimeError: the service refuses.
    """

    def __init__(self, address: str, token: str | None = None, policy: dict[str, Any] | None = None):
        from websockets.sync.client import connect

        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._open = ExitStack()
        self._socket = self._open.enter_context(connect(address, additional_headers=headers))
        self.session = self._next()
        if policy is not None:
            self.choose(policy)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def send(self, text: str) -> None:
        """Source that is final: whole words."""
        self._say(type="input_text_buffer.commit", text=f" {text}")

    def end(self) -> None:
        """The source of this sentence (or document) has ended."""
        self._say(type="input_text_buffer.commit", final=True)

    def choose(self, policy: dict[str, Any]) -> None:
        """Another policy from the next sentence on."""
        self._say(type="session.update", policy=policy)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Messages as they come, for ever. Raises: RuntimeError: the service says that something went wrong."""
        while True:
            yield self._next()

    def sentence(self) -> Iterator[dict[str, Any]]:
        """Messages up to the next ``end``."""
        for message in self:
            yield message
            if message["type"] == "end":
                return

    def close(self) -> None:
        self._open.close()

    def _say(self, **message: Any) -> None:
        self._socket.send(json.dumps(message))

    def _next(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(self._socket.recv())
        if message["type"] == "error":
            raise RuntimeError(f"{message['code']}: {message['message']}")
        return message
