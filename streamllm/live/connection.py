"""One client's WebSocket: who may connect, what it may send, and the protocol of docs/serve.md on it."""

import asyncio
import contextlib
import time
from collections.abc import Coroutine
from typing import Any

from starlette.types import Receive, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from streamllm.live.access import Access
from streamllm.live.protocol import (
    VERSION,
    Answer,
    Append,
    Asked,
    Clear,
    Commit,
    Created,
    End,
    Error,
    ProtocolFault,
    Update,
    Updated,
    answers,
    asked,
    text_of,
)
from streamllm.live.quotas import Quotas, Rate
from streamllm.live.service import Mailbox, Service
from streamllm.live.streams import LiveStream
from streamllm.live.told import Told

REASON = 123  # bytes that a close may say


class Line:
    """A WebSocket that was accepted, whatever is spoken on it. Made in the event loop.

    Messages go past Starlette, and one `check` of all lines now and then stands for a time-out of each message: with
    hundreds of streams, these took more time than all else on the sockets.

    Args:
        receive, send: of the socket's ASGI scope.

    Attributes:
        mailbox: what the client is told; closed, the client takes leave.
    """

    def __init__(self, socket: WebSocket, receive: Receive, send: Send, service: Service, access: Access):
        self._socket, self._next_event, self._say = socket, receive, send
        self._service, self._access = service, access
        self._quotas: Quotas = service.quotas
        self.mailbox = Mailbox(self._quotas.unsent)
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()  # is to have a fault, if any
        self._heard = time.monotonic()
        self._sending: float | None = None  # since when
        self._bytes = Rate(self._quotas.bytes_per_second, self._quotas.burst, time.monotonic)
        self._words = Rate(self._quotas.words_per_second, self._quotas.burst, time.monotonic)

    async def run(self) -> None:
        """From the first message to the last.

        Raises: ProtocolFault: why the socket is to be closed. WebSocketDisconnect: the client has left.
        """
        raise NotImplementedError

    @property
    def about(self) -> dict[str, str]:
        """Whom it leads to, for the journal: without the query, which may hold a token."""
        client = self._socket.client
        return {"client": "" if client is None else f"{client.host}:{client.port}", "path": self._socket.url.path}

    async def refuse(self, fault: ProtocolFault) -> None:
        """Say why, and close; not for longer than a second, for who does not listen does not take leave either."""
        with contextlib.suppress(TimeoutError, WebSocketDisconnect, RuntimeError):
            async with asyncio.timeout(1.0):
                if fault.code != "shutdown":
                    await self._socket.send_text(self.fault_text(fault))
                reason = str(fault).encode()[:REASON].decode(errors="ignore")
                await self._socket.close(fault.close or 1000, reason)

    def fault_text(self, fault: ProtocolFault) -> str:
        """As it is said."""
        return text_of(Error(fault.code, str(fault), None, fault.event_id))

    def check(self, now: float) -> None:
        """Whether the client is still there, and takes what it is told; else `run` ends with a fault soon."""
        if self._over.done():
            return
        if self._sending is not None and now - self._sending > self._quotas.send:
            self._over.set_exception(self._too_slow())
        elif now - self._heard > self._quotas.idle:
            seconds = f"{self._quotas.idle:g}"
            self._over.set_exception(ProtocolFault("idle", f"nothing has come for {seconds} s: connect again", 4408))

    async def _both(self, *tasks: Coroutine[Any, Any, None]) -> None:
        """Until one of them ends, or a `check` finds a fault."""
        running = [asyncio.create_task(each) for each in tasks]
        try:
            done, _ = await asyncio.wait([*running, self._over], return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            self._over.cancel()
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def _check_access(self) -> None:
        headers, query = self._socket.headers, self._socket.query_params
        if not self._access.allows_origin(headers):
            origin = headers.get("origin", headers.get("host", ""))
            raise ProtocolFault("origin", f"pages from {origin:.60} may not connect: name them in origins", 4403)
        if self._access.token is None:
            return
        shown = self._access.shown(headers, query)
        if shown is None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._quotas.token):
                    shown = await self._said_token()
        if not self._access.accepts(shown):
            raise ProtocolFault(
                "token", "the token is missing or wrong: header Authorization, ?token=, or first message", 4401
            )

    async def _said_token(self) -> str | None:
        """The token of the first message, where the protocol has a place for it."""
        return None

    async def _message(self) -> str:
        """The next one.

        Raises: ProtocolFault: too much has come.
        """
        message = await self._receive()
        self._heard = time.monotonic()
        if not self._bytes.take(len(message)):
            raise self._too_fast(f"{self._quotas.bytes_per_second:g} characters a second")
        return message

    async def _receive(self) -> str:
        message = await self._next_event()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1005))
        if message.get("text") is None:
            raise ProtocolFault("binary", "a binary frame came; accepted are JSON texts", 1003)
        return str(message["text"])

    def _check_words(self, stream: LiveStream, units: int) -> None:
        """So many were pushed. Raises: ProtocolFault: they are too many."""
        if not self._words.take(units):
            raise self._too_fast(f"{self._quotas.words_per_second:g} source units a second")
        if stream.unread > self._quotas.unread:
            raise self._too_fast(f"{self._quotas.unread} units that wait to be read")

    async def _send_text(self, text: str) -> None:
        self._sending = self._sending or time.monotonic()
        try:
            await self._say({"type": "websocket.send", "text": text})
        except OSError:
            raise WebSocketDisconnect(1006) from None
        self._sending = None

    def _too_fast(self, what: str) -> ProtocolFault:
        return ProtocolFault("too_fast", f"accepted are {what}: send as a person speaks", 4429)

    def _too_slow(self) -> ProtocolFault:
        return ProtocolFault("too_slow", "what was sent is not taken: read answers as they come", 4408)


class Connection(Line):
    """Speaks the protocol of docs/serve.md."""

    def __init__(self, socket: WebSocket, receive: Receive, send: Send, service: Service, access: Access):
        super().__init__(socket, receive, send, service, access)
        self._buffer = ""
        self._told: Told | None = None  # last

    async def run(self) -> None:
        await self._check_access()
        self._policy, policy = self._service.choices.named({})
        self._stream = self._service.open(policy, self.mailbox, about=self.about)
        try:
            await self._send(self._created())
            await self._both(self._listen(), self._tell())
        finally:
            self._service.close(self._stream)

    async def _said_token(self) -> str | None:
        first = asked(await self._receive())
        return first.token if isinstance(first, Update) else None

    def _created(self) -> Created:
        model, living_on = self._service.model, self._service.model.living_on
        units = model.prompt.source_unit, model.prompt.target_unit
        revises = living_on is not None and living_on.revision is not None
        ranges = self._service.choices.ranges
        return Created(
            VERSION,
            self._stream.name,
            self._policy,
            ranges,
            *units,
            revises,
            living_on is not None,
            self._service.streams.drafts,
        )

    # From the client

    async def _listen(self) -> None:
        while True:
            request = asked(await self._message())
            try:
                await self._do(request)
            except ProtocolFault as fault:
                if fault.close is not None:
                    raise
                await self._send(Error(fault.code, str(fault), None, request.event_id))

    async def _do(self, request: Asked) -> None:
        match request:
            case Append():
                self._append(request.text)
                self._stream.expect(self._buffer)
            case Commit():
                self._append(request.text)
                text, self._buffer = self._buffer, ""
                if text:
                    self._push(text)
                self._stream.expect("")
                if request.final:
                    self._stream.end()
            case Clear():
                self._buffer = ""
                self._stream.expect("")
            case Update():
                if request.policy is not None:
                    self._policy, policy = self._service.choices.named(request.policy)
                    self._stream.choose(policy)
                await self._send(Updated(self._policy, request.event_id))

    def _append(self, text: str) -> None:
        self._buffer += text
        if len(self._buffer) > self._quotas.message_bytes:
            raise ProtocolFault("too_much", f"{len(self._buffer)} characters are not committed: commit or clear", 1009)

    def _push(self, text: str) -> None:
        self._check_words(self._stream, self._stream.push(text))

    # To the client

    async def _tell(self) -> None:
        while told := await self.mailbox.some():
            for each in told:
                self._told = each
                for answer in answers(each):
                    await self._send(answer)
        if self.mailbox.overflows:
            raise self._too_slow()
        if (last := self._told) is not None and last.event.kind != "stop":
            read, written = last.state.read, last.state.written
            await self._send(End(last.sentence, "shutdown", read, written, round(last.event.seconds, 6)))
        raise ProtocolFault("shutdown", "the service ends: connect again later", 1001)

    async def _send(self, answer: Answer) -> None:
        await self._send_text(text_of(answer))
