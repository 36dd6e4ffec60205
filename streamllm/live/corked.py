"""WebSockets that write once for all that is sent in one turn of the event loop: what a step tells a stream goes out in
one call of the system, and wakes its client once."""

import asyncio
from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol


class Corked:
    """A transport as another one, but for this."""

    def __init__(self, transport: Any, loop: asyncio.AbstractEventLoop):
        self._transport, self._loop = transport, loop
        self._unsent: list[bytes] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        if not self._unsent:
            self._loop.call_soon(self._flush)
        self._unsent.append(data)

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        data, self._unsent = b"".join(self._unsent), []
        if data:
            self._transport.write(data)


class Protocol(WebSocketsSansIOProtocol):  # type: ignore[misc]
    """uvicorn's, with such a transport."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(Corked(transport, self.loop))
