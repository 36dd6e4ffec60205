"""AlignAtt4LLM's protocol for machine translation servers, version 1: a recogniser elsewhere sends the words of an
utterance, all of them each time, with its unstable last ones; what is translated of the others only grows.

Words are read as they are first said to be final, by the policy of the service; the unstable ones are drafted ahead and
come as ``buffer_text``. A newer update replaces an older one that was not begun, but for finals.
"""

import asyncio
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import permutations

import msgspec
from msgspec import Struct, field
from starlette.websockets import WebSocketDisconnect

from streamllm.live.connection import Line
from streamllm.live.protocol import ProtocolFault
from streamllm.live.service import Service
from streamllm.live.streams import LiveStream
from streamllm.live.told import Told
from streamllm.records import Emission

VERSION = 1
DRAFT = 0.1
"""Seconds that an answer waits for what is drafted of the unstable words."""

Word = tuple[str, float | None, float | None]
"""Its text, and where it begins and ends in milliseconds, if that is known."""


class Init(Struct, tag="init", tag_field="type"):
    """The first message. ``preset``, ``overrides``, ``context_text`` and ``history`` are taken and have no effect: the
    policy is the service's."""

    protocol_version: int
    source_lang: str
    target_lang: str
    accepted_target_prefix: str = ""


class Tail(Struct):
    """The unstable words."""

    words: list[Word] = field(default_factory=list)


class Words(Struct, tag="update", tag_field="type"):
    """All words of the open utterance by now."""

    seq: int
    utterance_id: int
    words: list[Word]
    tail: Tail | None = None
    clock_ms: float | None = None
    is_final: bool = False

    @property
    def texts(self) -> list[str]:
        return [text for text, _, _ in self.words]


class InitOk(Struct, tag="init_ok", tag_field="type"):
    protocol_version: int
    direction: str
    preset: str
    model: str


class Translation(Struct, tag="translation", tag_field="type"):
    """``committed_text`` is the one before and ``committed_delta``; where ``final``, that of the whole utterance."""

    seq: int
    utterance_id: int
    final: bool
    committed_text: str
    committed_delta: str
    buffer_text: str
    covered_source_units: int | None
    stop_reason: str


class Refusal(Struct, tag="error", tag_field="type"):
    code: str
    message: str
    supported: list[str] | None = None


_DECODER: msgspec.json.Decoder[Init | Words] = msgspec.json.Decoder(Init | Words)
_ENCODER = msgspec.json.Encoder()


@dataclass(frozen=True)
class _Heard:
    """What has come of an utterance: source units read, what is written, whether that is all, and the draft behind it,
    which is None while it is being made."""

    read: int = 0
    text: str = ""
    stop: str = ""
    draft: str | None = None
    error: Exception | None = None


class _Utterance:
    """One utterance, on a stream of its own."""

    def __init__(self, service: Service, number: int, about: Mapping[str, str]):
        self.number, self._service = number, service
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self.words: list[str] = []  # pushed
        self._units = 0
        self.heard = _Heard()
        self._here = _Heard()  # the same in the service's thread
        self.stream: LiveStream = service.open(service.choices.named({})[1], tell=self._told, about=about)
        self.stream.on_wait = lambda: self._tell(draft=None)
        self.stream.on_rest = self._rests

    def push(self, words: list[str], tail: list[str]) -> int:
        """Words that have come, and those that may follow; returns how many units the former are."""
        units = 0
        if words:
            units = self.stream.push(" ".join(["", *words]))
            self.words += words
            self._units += units
        self.stream.expect(" ".join(["", *tail]) if tail else "")
        return units

    async def rests(self, draft: bool) -> _Heard:
        """Once all that was pushed is read; with the draft of what may follow, where that is soon there."""
        while not (self.heard.stop or self.heard.read >= self._units):
            await self._change()
        if draft and self.heard.draft is None and not self.heard.stop:
            try:
                async with asyncio.timeout(DRAFT):
                    while self.heard.draft is None and not self.heard.stop:
                        await self._change()
            except TimeoutError:
                pass
        return self.heard

    async def ends(self) -> _Heard:
        """Once it is over."""
        while not self.heard.stop:
            await self._change()
        return self.heard

    async def _change(self) -> None:
        self._changed.clear()
        while not self._changed.is_set():
            if self._service.over:
                raise ProtocolFault("shutdown", "the service ends: connect again later", 1001)
            try:
                async with asyncio.timeout(1.0):
                    await self._changed.wait()
            except TimeoutError:
                pass

    def close(self) -> None:
        self._service.close(self.stream)

    # In the service's thread

    def _told(self, told: Told) -> None:
        event, here = told.event, self._here
        text = here.text
        if event.kind in ("write", "extend"):
            space = " " if text and event.kind == "write" and self._service.model.prompt.target_unit == "word" else ""
            text += space + event.text
        stop = event.text if event.kind == "stop" else ""
        self._here = _Heard(told.state.read, text, stop, None, told.error)
        if stop:
            self._tell()

    def _rests(self, drafted: list[Emission]) -> None:
        words = self._service.model.prompt.target_unit == "word"
        text = "".join((" " if words and not each.extends else "") + each.text for each in drafted)
        self._tell(draft=text.lstrip())

    def _tell(self, draft: str | None = None) -> None:
        here = self._here
        heard = _Heard(here.read, here.text, here.stop, draft, here.error)
        self._loop.call_soon_threadsafe(self._hear, heard)

    def _hear(self, heard: _Heard) -> None:
        self.heard = heard
        self._changed.set()


class Translator(Line):
    """Speaks this protocol."""

    async def run(self) -> None:
        self._shown = ""
        self._utterance: _Utterance | None = None
        self._ended = -1  # the last utterance that has ended
        self._finals: deque[Words] = deque()
        self._partial: Words | None = None  # the newest
        self._there = asyncio.Event()
        await self._check_access()
        try:
            self._utterance = _Utterance(self._service, -1, self.about)  # room is taken before anything is read
            await self._both(self._listen(), self._work(), self._take_leave())
        finally:
            if self._utterance is not None:
                self._utterance.close()

    def fault_text(self, fault: ProtocolFault) -> str:
        code = {"full": "busy", "bad_message": "bad_protocol"}.get(fault.code, fault.code)
        return _ENCODER.encode(Refusal(code, str(fault))).decode()

    async def _begin(self) -> None:
        init = await self._next()
        if not isinstance(init, Init):
            raise ProtocolFault("bad_message", "an update came before init")
        if init.protocol_version != VERSION:
            raise ProtocolFault("bad_message", f"protocol_version is {init.protocol_version}; accepted is {VERSION}")
        direction, languages = f"{init.source_lang}-{init.target_lang}", self._service.model.languages
        if languages is not None and languages.unlike(init.source_lang, init.target_lang):
            pairs = [languages.codes] if languages.ordered else permutations(languages.codes, 2)
            known = ["-".join(pair) for pair in pairs]
            message = f"the direction is {direction:.40}; accepted are {', '.join(known)}"
            await self._send(Refusal("unsupported_direction", message, known))
            await self._socket.close(1000)
            raise WebSocketDisconnect(1000)
        self._shown = init.accepted_target_prefix
        policy = self._service.choices.first
        family = type(self._service.model.model).__module__.rpartition(".")[2]
        await self._send(InitOk(VERSION, direction, policy, family))

    async def _next(self) -> Init | Words:
        text = await self._message()
        try:
            return _DECODER.decode(text)
        except (msgspec.ValidationError, msgspec.DecodeError, UnicodeEncodeError, RecursionError) as error:
            raise ProtocolFault(
                "bad_message", f"{text[:80]!r} is no message of this protocol ({error}); accepted are init and update"
            ) from error

    async def _send(self, answer: Struct) -> None:
        await self._send_text(_ENCODER.encode(answer).decode())

    async def _listen(self) -> None:
        await self._begin()
        while True:
            update = await self._next()
            if isinstance(update, Init):
                raise ProtocolFault("bad_message", "init comes once")
            if update.is_final:
                self._finals.append(update)
                self._partial = None
                if len(self._finals) > self._quotas.unread:
                    raise self._too_fast(f"{self._quotas.unread} utterances that wait")
            else:
                self._partial = update
            self._there.set()

    async def _work(self) -> None:
        while True:
            self._there.clear()
            while self._finals or self._partial is not None:
                update = self._finals.popleft() if self._finals else self._partial
                if update is self._partial:
                    self._partial = None
                assert update is not None
                if update.utterance_id <= self._ended:
                    message = f"utterance {update.utterance_id} is over: the next is {self._ended + 1}"
                    await self._send(Refusal("processing_failed", message))
                    continue
                answer = await (self._final(update) if update.is_final else self._grown(update))
                await self._send(answer)
            await self._there.wait()

    async def _take_leave(self) -> None:
        while not self.mailbox.closed:
            await self.mailbox.some()
        raise ProtocolFault("shutdown", "the service ends: connect again later", 1001)

    def _open(self, update: Words) -> _Utterance:
        """The utterance, with these words pushed. Words that have been read and are other ones now are read anew, in
        a new stream: of what was shown nothing is taken back before the end."""
        here, words = self._utterance, update.texts
        if here is not None and here.number not in (-1, update.utterance_id):
            self._shown = ""
        if here is None or here.number not in (-1, update.utterance_id) or words[: len(here.words)] != here.words:
            if here is not None:
                here.close()
            self._utterance = here = None
            here = self._utterance = _Utterance(self._service, update.utterance_id, self.about)
        here.number = update.utterance_id
        tail = [] if update.tail is None or update.is_final else [text for text, _, _ in update.tail.words]
        self._check_words(here.stream, here.push(words[len(here.words) :], tail))
        return here

    async def _grown(self, update: Words) -> Translation | Refusal:
        here = self._open(update)
        heard = await here.rests(draft=update.tail is not None)
        if heard.error is not None:
            return Refusal("processing_failed", str(heard.error))
        before, delta = self._shown, ""
        if heard.text.startswith(before):
            self._shown, delta = heard.text, heard.text[len(before) :]
        reason = heard.stop or "policy"
        return Translation(update.seq, update.utterance_id, False, self._shown, delta, heard.draft or "", None, reason)

    async def _final(self, update: Words) -> Translation | Refusal:
        here = self._open(update)
        here.stream.end()
        heard = await here.ends()
        here.close()
        self._utterance, self._shown, self._ended = None, "", update.utterance_id
        if heard.error is not None:
            return Refusal("processing_failed", str(heard.error))
        text = heard.text
        return Translation(update.seq, update.utterance_id, True, text, "", "", None, heard.stop)
