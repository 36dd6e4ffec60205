"""The service on sockets: a WebSocket a stream, SimulEval's protocol, health and metrics, on one port. It needs the
extra ``serve`` (Starlette, uvicorn, websockets).

One task reads what a client sends, at once, and one sends what it is told; a fault of one client ends its two tasks and
nothing else.
"""

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path
from types import FrameType

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocket, WebSocketDisconnect

from streamllm.live.access import Access
from streamllm.live.agent import PooledSentence
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
from streamllm.live.simuleval import ROUTES, Agent
from streamllm.live.told import Told

log = logging.getLogger(__name__)

STREAM = "/v1/stream"
PAGE = Path(__file__).parent / "page"
"""Files of the page, which is served at /page/ where the folder is there."""
GOODBYE = 5.0
"""Seconds that clients have to take leave when the service ends."""
REASON = 123  # bytes that a close may say
CSP = "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"


class Connection:
    """One client's WebSocket, accepted."""

    def __init__(self, socket: WebSocket, service: Service, access: Access):
        self._socket, self._service, self._access = socket, service, access
        self._quotas: Quotas = service.quotas
        self.mailbox = Mailbox(self._quotas.unsent)
        self._sends = asyncio.Lock()
        self._buffer = ""
        self._told: Told | None = None  # last
        self._bytes = Rate(self._quotas.bytes_per_second, self._quotas.burst, time.monotonic)
        self._words = Rate(self._quotas.words_per_second, self._quotas.burst, time.monotonic)

    async def run(self) -> None:
        """From the first message to the last.

        Raises: ProtocolFault: why the socket is to be closed. WebSocketDisconnect: the client has left.
        """
        await self._check_access()
        self._policy, policy = self._service.choices.named({})
        self._stream = self._service.open(policy, self.mailbox)
        tasks: list[asyncio.Task[None]] = []
        try:
            await self._send(self._created())
            tasks = [asyncio.create_task(self._listen()), asyncio.create_task(self._tell())]
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            self._service.close(self._stream)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _created(self) -> Created:
        model, living_on = self._service.model, self._service.model.living_on
        units = model.prompt.source_unit, model.prompt.target_unit
        revises = living_on is not None and living_on.revision is not None
        ranges = self._service.choices.ranges
        return Created(VERSION, self._stream.name, self._policy, ranges, *units, revises, living_on is not None)

    async def _check_access(self) -> None:
        headers, query = self._socket.headers, self._socket.query_params
        if not self._access.allows_origin(headers):
            origin = headers.get("origin", headers.get("host", ""))
            raise ProtocolFault("origin", f"pages from {origin:.60} may not connect: name them in origins", 4403)
        if self._access.token is None:
            return
        shown = self._access.shown(headers, query)
        if shown is None:
            try:
                async with asyncio.timeout(self._quotas.token):
                    first = asked(await self._receive())
                    shown = first.token if isinstance(first, Update) else None
            except TimeoutError:
                pass
        if not self._access.accepts(shown):
            raise ProtocolFault(
                "token", "the token is missing or wrong: header Authorization, ?token=, or first message", 4401
            )

    # From the client

    async def _listen(self) -> None:
        while True:
            try:
                async with asyncio.timeout(self._quotas.idle):
                    message = await self._receive()
            except TimeoutError:
                seconds = f"{self._quotas.idle:g}"
                raise ProtocolFault("idle", f"nothing has come for {seconds} s: connect again", 4408) from None
            if not self._bytes.take(len(message)):
                raise self._too_fast(f"{self._quotas.bytes_per_second:g} characters a second")
            request = asked(message)
            try:
                await self._do(request)
            except ProtocolFault as fault:
                if fault.close is not None:
                    raise
                await self._send(Error(fault.code, str(fault), None, request.event_id))

    async def _receive(self) -> str:
        message = await self._socket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1005))
        if message.get("text") is None:
            raise ProtocolFault("binary", "a binary frame came; accepted are JSON texts", 1003)
        return str(message["text"])

    async def _do(self, request: Asked) -> None:
        match request:
            case Append():
                self._append(request.text)
            case Commit():
                self._append(request.text)
                text, self._buffer = self._buffer, ""
                if text:
                    self._push(text)
                if request.final:
                    self._stream.end()
            case Clear():
                self._buffer = ""
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
        units = self._stream.push(text)
        if not self._words.take(units):
            raise self._too_fast(f"{self._quotas.words_per_second:g} source units a second")
        if self._stream.unread > self._quotas.unread:
            raise self._too_fast(f"{self._quotas.unread} units that wait to be read")

    def _too_fast(self, what: str) -> ProtocolFault:
        return ProtocolFault("too_fast", f"accepted are {what}: send as a person speaks", 4429)

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
        try:
            async with asyncio.timeout(self._quotas.send), self._sends:
                await self._socket.send_text(text_of(answer))
        except TimeoutError:
            raise self._too_slow() from None

    def _too_slow(self) -> ProtocolFault:
        return ProtocolFault("too_slow", "what was sent is not taken: read answers as they come", 4408)


class Application:
    """What is served, as a Starlette application (`app`)."""

    def __init__(self, service: Service, access: Access, info: str = ""):
        self.service, self.access = service, access
        self.connections: set[Connection] = set()
        self.stopping = False
        self._agent: Agent | None = None
        self._agent_turn = asyncio.Lock()
        self._info = info
        routes: list[BaseRoute] = [
            WebSocketRoute(STREAM, self._stream),
            Route("/health", self._health),
            Route("/metrics", self._metrics),
            *(Route(path, self._simuleval, methods=["GET", "POST", "PUT", "DELETE", "PATCH"]) for path in ROUTES),
        ]
        if PAGE.is_dir():
            routes.append(Mount("/page", StaticFiles(directory=PAGE, html=True)))
        self.app = Starlette(routes=routes, lifespan=self._lifespan)

    @contextlib.asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        self.service.start()
        try:
            yield
        finally:
            await run_in_threadpool(self.service.stop)

    async def goodbye(self) -> None:
        """Let each stream take leave: no new ones, an ``end`` for the sentences under way, then the closes."""
        self.stopping = True
        for connection in list(self.connections):
            connection.mailbox.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GOODBYE):
                while self.connections:
                    await asyncio.sleep(0.02)

    async def _stream(self, socket: WebSocket) -> None:
        await socket.accept()
        connection = Connection(socket, self.service, self.access)
        if not self.stopping:
            self.connections.add(connection)
        try:
            if self.stopping:
                raise ProtocolFault("shutdown", "the service ends: connect again later", 1001)
            await connection.run()
        except ProtocolFault as fault:
            log.info("%s: %s", fault.code, fault)
            await _refuse(socket, fault)
        except (WebSocketDisconnect, RuntimeError) as error:  # the client has left, also while something was sent
            log.debug("left: %s", error)
        finally:
            self.connections.discard(connection)

    async def _health(self, request: Request) -> Response:
        failed = self.service.failed
        if failed is not None or self.stopping:
            status = "stopping" if failed is None else f"failed: {failed}"
            return JSONResponse({"status": status}, status_code=503)
        return JSONResponse({"status": "ok", "protocol": VERSION, "streams": len(self.service.open_streams)})

    async def _metrics(self, request: Request) -> Response:
        if not self.access.accepts(self.access.shown(request.headers, request.query_params)):
            return PlainTextResponse("the token is missing or wrong\n", status_code=401)
        return PlainTextResponse(self.service.metrics(), media_type="text/plain; version=0.0.4")

    async def _simuleval(self, request: Request) -> Response:
        if request.url.path == "/" and PAGE.is_dir() and "text/html" in request.headers.get("accept", ""):
            return RedirectResponse("/page/")
        if not self.access.local or not self.access.allows_origin(request.headers):
            return PlainTextResponse("SimulEval's protocol has no token: it is for this machine alone", status_code=403)
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > self.service.quotas.message_bytes:
                return PlainTextResponse("the body is too long", status_code=413)
        async with self._agent_turn:
            status, text = await run_in_threadpool(self._reply, request.method, request.url.path, body)
        media = "text/plain" if status == 409 else "application/json"
        return Response(text, status_code=status, media_type=media)

    def _reply(self, method: str, path: str, body: bytes) -> tuple[int, str]:
        if self._agent is None:
            self._agent = Agent(lambda: PooledSentence(self.service), self._info)
        return self._agent.reply(method, path, body)


async def _refuse(socket: WebSocket, fault: ProtocolFault) -> None:
    """Say why, and close; not for longer than a second, for who does not listen does not take leave either."""
    with contextlib.suppress(TimeoutError, WebSocketDisconnect, RuntimeError):
        async with asyncio.timeout(1.0):
            if fault.code != "shutdown":
                await socket.send_text(text_of(Error(fault.code, str(fault), None, fault.event_id)))
            reason = str(fault).encode()[:REASON].decode(errors="ignore")
            await socket.close(fault.close or 1000, reason)


class Server(uvicorn.Server):  # type: ignore[misc]
    """uvicorn's, but that at a signal the streams take leave first; a second signal ends it at once."""

    def __init__(self, config: uvicorn.Config, application: Application):
        super().__init__(config)
        self._application = application
        self._leaving: asyncio.Task[None] | None = None
        self.ended_by: int | None = None  # the first signal

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        self.loop = asyncio.get_running_loop()
        await super().serve(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._application.stopping:
            self.should_exit = self.force_exit = True
        else:
            self._application.stopping, self.ended_by = True, sig
            self.loop.call_soon_threadsafe(self.leave)

    def leave(self) -> None:
        """Begin to end, without a signal, too. In the event loop."""
        self._leaving = self._leaving or asyncio.ensure_future(self._leave())

    async def _leave(self) -> None:
        await self._application.goodbye()
        self.should_exit = True


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises: OSError: it cannot; says what to do.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(1024)
    except OSError as error:
        listener.close()
        raise OSError(f"cannot listen on {host}:{port} ({error.strerror or error}): choose another port") from error
    return listener


def server_of(application: Application) -> Server:
    """What serves an application; ``run(sockets=[listening(host, port)])`` does so until a signal comes."""
    config = uvicorn.Config(
        application.app,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ws_max_size=application.service.quotas.message_bytes,
        ws_per_message_deflate=False,
        timeout_graceful_shutdown=2,
        headers=[("Content-Security-Policy", CSP), ("X-Content-Type-Options", "nosniff")],
    )
    return Server(config, application)
