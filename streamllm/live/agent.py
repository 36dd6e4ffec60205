"""SimulEval's protocol on the service: a sentence of it is a stream as any other, in the pool of all."""

import threading
from http import HTTPStatus

from streamllm.live.protocol import ProtocolFault
from streamllm.live.service import Service
from streamllm.live.simuleval import Dialogue, ProtocolError
from streamllm.live.streams import LiveStream
from streamllm.live.told import Told

LOOKS = 1.0
"""Seconds after which one who waits for an answer looks whether there is still somebody to give it."""


class PooledSentence(Dialogue):
    """One sentence, whose stream is opened when it has to be. It blocks: do not call it in the event loop."""

    def __init__(self, service: Service):
        prompt = service.model.prompt
        super().__init__(prompt.source_unit, prompt.target_unit)
        self._service = service
        self._stream: LiveStream | None = None
        self._changed = threading.Condition()
        self._needs = True  # source that has not come
        self._ended = False
        self._error: Exception | None = None

    def _take(self, units: list[str], ends: bool) -> None:
        if not (units or ends) or self._ended:
            return
        if self._stream is None:
            try:
                self._stream = self._service.open(self._service.choices.named({})[1], tell=self._told)
            except ProtocolFault as fault:
                self._error = ProtocolError(str(fault), HTTPStatus.CONFLICT)  # said where SimulEval looks
                return
            self._stream.on_wait = self._waits
        with self._changed:
            self._needs = False
            for unit in units:
                self._stream.push(unit)
            if ends:
                self._stream.end()

    def _go_on(self) -> bool:
        with self._changed:
            while not self._changed.wait_for(lambda: self._needs or self._ended or self._error, LOOKS):
                if self._service.over:
                    raise RuntimeError("the service ends")
        if self._error is not None:
            raise self._error
        return self._ended

    def close(self) -> None:
        """Give up."""
        if self._stream is not None:
            self._service.close(self._stream)

    # In the thread of the service

    def _waits(self) -> None:
        with self._changed:
            if self._stream is None or not self._stream.arrived:
                self._needs = True
                self._changed.notify()

    def _told(self, told: Told) -> None:
        with self._changed:
            self._hear(told.event)
            if told.event.kind == "stop":
                self._ended, self._error = True, told.error
                self._changed.notify()
