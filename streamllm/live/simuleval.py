"""SimulEval's HTTP agent protocol: a client pushes source as it arrives and pops the target written since.

Invariant: a pop gives all that the policy loop writes before it needs source that has not been pushed, and no more.
So the number of source units pushed when a target unit is popped is its delay in a run.
"""

import itertools
import json
import logging
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, Self
from urllib.parse import urlsplit

from greenlet import GreenletExit, getcurrent, greenlet

from streamllm.check import check_model
from streamllm.engine.limits import Limits
from streamllm.engine.loop import stream
from streamllm.engine.stream import SessionLike
from streamllm.models.lengths import fitting_units
from streamllm.models.model import StreamingModel
from streamllm.records import Decide, Event, Example, Policy, Trace
from streamllm.units import Unit, join, pieces

log = logging.getLogger(__name__)

PORT = 12321  # where SimulEval looks if it is not told
ROUTES = {"/": "GET", "/reset": "POST", "/input": "PUT", "/output": "GET"}


class ProtocolError(ValueError):
    """A request that this protocol does not have, or (409) one that does not follow the last; the message says what is
    accepted."""

    def __init__(self, message: str, status: HTTPStatus = HTTPStatus.BAD_REQUEST):
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Segment:
    """Text on its way: SimulEval 1.1.4's TextSegment, or its EmptySegment when there is none.

    ``finished``: no more will come, of the source or of the target. ``index``: how many units of source came before, as
    SimulEval counts them; None where a client does not count.
    """

    content: str = ""
    finished: bool = False
    index: int | None = None

    @classmethod
    def from_json(cls, body: bytes) -> Self:
        """Raises: ProtocolError: ``body`` is no segment, or one of speech."""
        try:
            values = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise ProtocolError(
                f"the body is not JSON ({error}): put a segment such as {cls('word').to_json()}"
            ) from error
        if not isinstance(values, dict) or "data_type" not in values:
            raise ProtocolError(f"{values!r:.80} is no segment: put an object such as {cls('word').to_json()}")
        kind, finished, index = values["data_type"], values.get("finished", False), values.get("index")
        content = "" if kind is None else values.get("content")
        if kind not in ("text", None):
            raise ProtocolError(f"data_type is {kind!r}; accepted are 'text', and null for a segment without content")
        if not isinstance(finished, bool):
            raise ProtocolError(f"finished is {finished!r}; accepted are true and false")
        if index is not None and (not isinstance(index, int) or isinstance(index, bool) or index < 0):
            raise ProtocolError(f"index is {index!r:.80}; accepted are the number of units before it, and null")
        if not isinstance(content, str):
            raise ProtocolError(f"content is {content!r:.80}; accepted is a string")
        if any("\ud800" <= char <= "\udfff" for char in content):
            raise ProtocolError(f"content is {content!r:.80}, which is half a character: send both surrogates together")
        return cls(content, finished, index)

    def to_json(self) -> str:
        """As SimulEval writes it."""
        values: dict[str, Any] = {"index": self.index or 0, "content": self.content or [], "finished": self.finished}
        values |= {"is_empty": not self.content, "data_type": "text" if self.content else None}
        return json.dumps(values | {"tgt_lang": None, "config": {}})


class Dialogue:
    """One sentence between a client of this protocol and whatever translates it: `Sentence`, or
    `streamllm.live.agent.PooledSentence`.

    A client of this protocol cannot change a word that it has been given. If a unit is extended after it was popped
    (the model adds a comma after the next read), the addition comes as a word of its own: see `as_sent`. To hold units
    back until nothing can extend them would delay each of them by the read that may follow it.

    Call `pop` and `close` from one thread.
    """

    def __init__(self, source_unit: Unit = "word", target_unit: Unit = "word"):
        self._units = source_unit, target_unit
        self._before = ""  # the last of the source so far
        self._segments = self._pushes = self._pops = 0  # segments with content, and all
        self._source_ended = False
        self._written: list[str] = []  # and not popped yet

    def push(self, segment: Segment) -> None:
        """More source: any number of units, or none.

        Raises:
            ProtocolError: the source had ended, or the index of the segment says that a request is missing or is of
                another sentence.
        """
        if segment.index is not None:
            self._check_order(segment.index, bool(segment.content))
        units = pieces(segment.content, self._units[0], self._before)
        self._before = (self._before + segment.content)[-2:]
        if units and self._source_ended:
            raise ProtocolError(
                f"{segment.content!r:.80} comes after the end of the source: POST /reset before a new sentence"
            )
        self._segments, self._pushes = self._segments + bool(segment.content), self._pushes + 1
        ends = segment.finished and not self._source_ended
        self._source_ended = self._source_ended or segment.finished
        self._take(units, ends)

    def pop(self) -> Segment:
        """What has been written since the last pop; ``finished`` once the sentence has ended.

        Raises: what the model or the policy raises, also whenever it is called again.
        """
        self._pops += 1
        ended = self._go_on()
        written, self._written = self._written, []
        return Segment(join(written, self._units[1]), finished=ended)

    def close(self) -> None:
        """Give up."""
        raise NotImplementedError

    def _take(self, units: list[str], ends: bool) -> None:
        """More source, and whether it ends with that."""
        raise NotImplementedError

    def _go_on(self) -> bool:
        """Until more source is needed, or to the end of the sentence; returns whether that is reached."""
        raise NotImplementedError

    def _hear(self, event: Event) -> None:
        if event.kind == "extend" and self._written:  # nobody has seen it
            self._written[-1] += event.text
        elif event.kind in ("write", "extend"):
            self._written.append(event.text)

    def _check_order(self, index: int, content: bool) -> None:
        """SimulEval counts the units that it sends, and asks for output after each of them."""
        # Where nothing is left to send, it sends segments without content and with the index 0.
        if index != self._segments and (content or index or not self._source_ended):
            found = f"the index {index} comes where {self._segments} is due"
        elif self._pops != self._pushes:
            found = f"the index {index} comes after {self._pushes} PUT /input and {self._pops} GET /output"
        else:
            return
        raise ProtocolError(
            f"{found}: a request is missing, or two evaluators ask at once. This sentence is lost: evaluate again, one "
            "evaluator at a time. (A client that does not count leaves out index.)",
            HTTPStatus.CONFLICT,
        )


class Sentence(Dialogue):
    """The policy loop over one sentence, which stands still whenever it needs source that has not been pushed."""

    def __init__(
        self,
        session: SessionLike,
        decide: Decide,
        limits: Limits = Limits(),
        source_unit: Unit = "word",
        target_unit: Unit = "word",
        fitting: Callable[[Iterator[str]], Iterator[str]] = iter,
    ):
        super().__init__(source_unit, target_unit)
        self._events = stream(session, fitting(self._arriving()), decide, limits, target_unit)
        self._loop: greenlet | None = None
        self._pushed: deque[str] = deque()  # and not read yet
        self._error: Exception | None = None

    def _take(self, units: list[str], ends: bool) -> None:
        self._pushed.extend(units)

    def _go_on(self) -> bool:
        if self._loop is None:
            self._loop = greenlet(self._run)
        if self._error is not None:
            raise self._error
        if not self._loop.dead:
            try:
                self._loop.switch()
            except Exception as error:
                self._error = error
                raise
        return bool(self._loop.dead)

    def close(self) -> None:
        """Give up."""
        if self._loop:  # has begun and has not ended
            self._loop.throw(GreenletExit)

    def _run(self) -> None:
        for event, _ in self._events:
            self._hear(event)

    def _arriving(self) -> Iterator[str]:
        while True:
            if self._pushed:
                yield self._pushed.popleft()
            elif self._source_ended:
                return
            else:
                getcurrent().parent.switch()  # back to pop()


def as_sent(trace: Trace) -> tuple[list[str], list[int]]:
    """The words and delays that SimulEval records when it is served the translation of ``trace``.

    They are the trace's own, with two exceptions: the addition to an extended unit is a word with a delay of its own;
    and no delay is 0, since SimulEval pops nothing before its first push.
    """
    words: list[str] = []
    delays: list[int] = []
    read = 0
    for event in trace.events:
        delay = max(read, min(1, trace.source_units))
        if event.kind in ("read", "forced_read"):
            read += 1
        elif event.kind == "extend" and delays and delays[-1] == delay:  # nobody has seen the unit
            words[-1] += event.text
        elif event.kind in ("write", "extend"):
            words.append(event.text)
            delays.append(delay)
    return words, delays


def agent_server(
    model: StreamingModel,
    policy: Policy,
    limits: Limits = Limits(),
    host: str = "127.0.0.1",
    port: int = PORT,
    seed: int = 0,
) -> "AgentServer":
    """A server of ``model`` and ``policy``, listening; ``serve_forever()`` makes it answer.

    Sentences have no ids here, so sampling is seeded otherwise than in a run.

    Raises: as `AgentServer`; ValueError: the policy needs to know the sentence (`policies.Oracle`), or cannot decide
        with this model.
    """
    if model.living_on is not None and model.living_on.revision is not None:
        raise ValueError(
            "paradigm=revised takes back what it has shown, and a client of SimulEval's protocol cannot: choose "
            "paradigm=group"
        )
    check_model(policy, model)
    numbers = itertools.count()

    def new_sentence() -> Sentence:
        name = f"served-{next(numbers)}"
        decide = policy.start(Example(name, "", ""))
        units = model.prompt.source_unit, model.prompt.target_unit
        fitting = partial(fitting_units, model.prompt, limits=limits)
        return Sentence(model.session(seed, name), decide, limits, *units, fitting)

    return AgentServer(new_sentence, host, port, info=f"{policy} [text -> text]")


class Agent:
    """Answers the requests of this protocol, one sentence at a time, whoever asks. Call it from one thread at a time.

    Args:
        info: what GET / says.
    """

    def __init__(self, new_sentence: Callable[[], Dialogue], info: str = ""):
        self._new_sentence, self._info = new_sentence, info
        self._sentence = new_sentence()
        self._lost: str | None = None  # why the sentence is, until the next reset

    def reply(self, method: str, path: str, body: bytes = b"") -> tuple[HTTPStatus, str]:
        """Status and body of the answer to a request; it is JSON, but for that of 409, which is plain text: SimulEval
        looks at no status, and what it cannot read stops it."""
        try:
            return HTTPStatus.OK, self._answer(method, path, body)
        except ProtocolError as error:
            return error.status, str(error) if error.status == HTTPStatus.CONFLICT else error_line(error)
        except Exception as error:  # an error of the model or the policy costs this sentence, not the server
            log.exception("%s %s", method, path)
            return HTTPStatus.INTERNAL_SERVER_ERROR, error_line(error)

    def close(self) -> None:
        """Give up the sentence under way."""
        self._sentence.close()

    def _answer(self, method: str, path: str, body: bytes) -> str:
        if path not in ROUTES:
            known = ", ".join(f"{verb} {route}" for route, verb in ROUTES.items())
            raise ProtocolError(f"there is no {path}; there are: {known}", HTTPStatus.NOT_FOUND)
        if method != ROUTES[path]:
            message = f"{method} {path} is not accepted: use {ROUTES[path]} {path}"
            raise ProtocolError(message, HTTPStatus.METHOD_NOT_ALLOWED)
        if path == "/reset":
            self._sentence.close()
            self._sentence, self._lost = self._new_sentence(), None
        elif path == "/input":
            self._check_lost()
            try:
                self._sentence.push(Segment.from_json(body))
            except ProtocolError as error:
                if _counts(body):
                    self._lost = str(error)
                    log.warning("%s", error)
                raise
        elif path == "/output":
            self._check_lost()
            return self._sentence.pop().to_json()
        else:
            return json.dumps({"info": self._info})
        return ""

    def _check_lost(self) -> None:
        if self._lost is not None:
            raise ProtocolError(f"{self._lost} (until POST /reset)", HTTPStatus.CONFLICT)


class AgentServer(HTTPServer):
    """One sentence at a time, whoever asks, in the thread that serves.

    Args:
        port: 0 takes a free one; see `address`.
        info: what GET / says.

    Raises:
        ValueError: port is not a port number.
        OSError: it cannot listen there.
    """

    def __init__(self, new_sentence: Callable[[], Dialogue], host: str = "127.0.0.1", port: int = PORT, info: str = ""):
        if not isinstance(port, int) or isinstance(port, bool) or not 0 <= port <= 65535:
            raise ValueError(f"port is {port!r}; accepted are 0 (any free port) to 65535")
        self.agent = Agent(new_sentence, info)
        try:
            super().__init__((host, port), _Handler)
        except OSError as error:
            raise OSError(f"cannot listen on {host}:{port} ({error.strerror or error}): choose another port") from error

    @property
    def address(self) -> str:
        host, port = self.server_address[:2]
        return f"http://{host!s}:{port}"


def _counts(body: bytes) -> bool:
    """Whether a refused segment has an index. Then SimulEval may have sent it, which does not look at the status and
    would go on without it."""
    try:
        values = json.loads(body)
    except (ValueError, RecursionError):
        return False
    return isinstance(values, dict) and values.get("index") is not None


class _Handler(BaseHTTPRequestHandler):
    server: AgentServer
    timeout = 60  # seconds: a client that stalls must not stop the others for ever
    wbufsize = -1  # headers and body leave together, not one waiting for the other's acknowledgement

    def do_GET(self) -> None:
        try:
            body = self._body()
        except ProtocolError as error:
            status, text = error.status, error_line(error)
        else:
            status, text = self.server.agent.reply(self.command, urlsplit(self.path).path, body)
        content = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain" if status == HTTPStatus.CONFLICT else "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_POST = do_PUT = do_DELETE = do_PATCH = do_GET

    def _body(self) -> bytes:
        length = self.headers.get("Content-Length", "0")
        if not (length.isascii() and length.isdecimal()):
            raise ProtocolError(f"Content-Length is {length!r}; accepted is the number of bytes of the body")
        return self.rfile.read(int(length))

    def log_message(self, format: str, *args: Any) -> None:
        log.debug(format, *args)


def error_line(error: Exception) -> str:
    """One line of JSON that says what went wrong."""
    return json.dumps({"error": " ".join(str(error).split()) or type(error).__name__}, ensure_ascii=False)
