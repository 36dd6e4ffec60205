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
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from streamllm.live.access import Access
from streamllm.live.agent import PooledSentence
from streamllm.live.connection import Connection, Line
from streamllm.live.corked import Protocol
from streamllm.live.mt import Translator
from streamllm.live.protocol import VERSION, ProtocolFault
from streamllm.live.service import Service
from streamllm.live.simuleval import ROUTES, Agent

log = logging.getLogger(__name__)

STREAM = "/v1/stream"
UTTERANCES = "/v1/mt"
"""Of AlignAtt4LLM's protocol for machine translation servers."""
SPOKEN: dict[str, type[Line]] = {STREAM: Connection, UTTERANCES: Translator}
PAGE = Path(__file__).parent / "page"
"""Files of the page, which is served at /page/ where the folder is there."""
LOOKS = 0.1
"""Seconds between two looks at who is idle or slow."""
GOODBYE = 5.0
"""Seconds that clients have to take leave when the service ends."""
CSP = "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"


class Application:
    """What is served, as an ASGI application: streams by itself, all else by Starlette."""

    def __init__(self, service: Service, access: Access, info: str = ""):
        self.service, self.access = service, access
        self.connections: set[Line] = set()
        self.stopping = False
        self._agent: Agent | None = None
        self._agent_turn = asyncio.Lock()
        self._info = info
        routes: list[BaseRoute] = [
            Route("/health", self._health),
            Route("/metrics", self._metrics),
            *(Route(path, self._simuleval, methods=["GET", "POST", "PUT", "DELETE", "PATCH"]) for path in ROUTES),
        ]
        if PAGE.is_dir():
            routes.append(Mount("/page", StaticFiles(directory=PAGE, html=True)))
        self._others = Starlette(routes=routes, lifespan=self._lifespan)

    @contextlib.asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        self.service.start()
        watching = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            watching.cancel()
            await run_in_threadpool(self.service.stop)
            self.service.journal.write("stopped", sentences=self.service.streams.counts.sentences)

    async def _watch(self) -> None:
        while True:
            now = time.monotonic()
            for line in list(self.connections):
                line.check(now)
            await asyncio.sleep(LOOKS)

    async def goodbye(self) -> None:
        """Let each stream take leave: no new ones, an ``end`` for the sentences under way, then the closes."""
        self.stopping = True
        self.service.journal.write("stopping", streams=len(self.service.open_streams))
        for connection in list(self.connections):
            connection.mailbox.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GOODBYE):
                while self.connections:
                    await asyncio.sleep(0.02)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket" and (kind := SPOKEN.get(scope["path"])) is not None:
            await self._speak(kind, scope, receive, send)
        else:
            await self._others(scope, receive, send)

    async def _speak(self, kind: type[Line], scope: Scope, receive: Receive, send: Send) -> None:
        socket = WebSocket(scope, receive, send)
        await socket.accept()
        line = kind(socket, receive, send, self.service, self.access)
        if not self.stopping:
            self.connections.add(line)
        try:
            if self.stopping:
                raise ProtocolFault("shutdown", "the service ends: connect again later", 1001)
            await line.run()
        except ProtocolFault as fault:
            if fault.code != "shutdown":
                # Without its message, which may hold what the client said.
                self.service.journal.write("refused", code=fault.code, close=fault.close, **line.about)
            await line.refuse(fault)
        except (WebSocketDisconnect, RuntimeError) as error:  # the client has left, also while something was sent
            log.debug("left: %s", error)
        finally:
            self.connections.discard(line)

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
        application,
        log_config=None,
        log_level="warning",  # it would log addresses with their tokens
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ws=Protocol,
        ws_max_size=application.service.quotas.message_bytes,
        ws_per_message_deflate=False,
        timeout_graceful_shutdown=2,
        headers=[("Content-Security-Policy", CSP), ("X-Content-Type-Options", "nosniff")],
    )
    return Server(config, application)
