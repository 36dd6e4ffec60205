"""What a client and the service say to each other over a WebSocket: JSON texts, version 1 (docs/serve.md has their
schemas, made from these classes). Names are those that the field uses for text that may still be revised."""

from typing import Any, Literal, get_args

import msgspec
from msgspec import Struct

from streamllm.live.told import Told

VERSION = 1


class ProtocolFault(ValueError):
    """A message that this protocol does not have, or that does not follow the last.

    Args:
        code: one word that says which fault it is.
        close: the code that the socket is closed with; None where the stream goes on.
    """

    def __init__(self, code: str, message: str, close: int | None = 4400, event_id: str | None = None):
        super().__init__(message)
        self.code, self.close, self.event_id = code, close, event_id


# --- from the client


class Append(Struct, tag="input_text_buffer.append", tag_field="type"):
    """Text that may still change; nothing of it is told before it is committed."""

    text: str
    event_id: str | None = None


class Commit(Struct, tag="input_text_buffer.commit", tag_field="type"):
    """What was appended is final, and ends with a whole unit. ``text`` is appended before. ``final``: no more will come
    of this sentence (or document); it is translated to its end, and what comes then is another one's."""

    text: str = ""
    final: bool = False
    event_id: str | None = None


class Clear(Struct, tag="input_text_buffer.clear", tag_field="type"):
    """Drop what was appended since the last commit."""

    event_id: str | None = None


class Update(Struct, tag="session.update", tag_field="type"):
    """The policy from the next sentence on, by its name and numbers, as `Created` lists them; and the token, where that
    is neither in a header nor in the address."""

    policy: dict[str, str | int | float] | None = None
    token: str | None = None
    event_id: str | None = None


class ProposedAppend(Append, tag="input_text.append", tag_field="type"):
    """`Append`, as the proposal calls it."""


class ProposedCommit(Commit, tag="input_text.commit", tag_field="type"):
    """`Commit`, as the proposal calls it."""


class ProposedClear(Clear, tag="input_text.clear", tag_field="type"):
    """`Clear`, as the proposal calls it."""


Asked = Append | Commit | Clear | Update
FROM_CLIENT: tuple[type[Struct], ...] = (Append, Commit, Clear, Update)
_DECODER: msgspec.json.Decoder[Asked] = msgspec.json.Decoder(
    Append | Commit | Clear | Update | ProposedAppend | ProposedCommit | ProposedClear
)


def asked(message: str) -> Asked:
    """What a client says.

    Raises: ProtocolFault: it is no JSON, or no message of this protocol.
    """
    try:
        found = _DECODER.decode(message)
    except (msgspec.ValidationError, msgspec.DecodeError, UnicodeEncodeError, RecursionError) as error:
        known = ", ".join(str(kind.__struct_config__.tag) for kind in FROM_CLIENT)
        raise ProtocolFault(
            "bad_message", f"{message[:80]!r} is no message of this protocol ({error}); accepted are {known}"
        ) from error
    return found


# --- from the service


class Created(Struct, tag="session.created", tag_field="type", omit_defaults=False):
    """The first message. ``policies``: what a client may choose, each with its numbers and their ranges. ``documents``:
    the stream goes on after a sentence, and has one ``end``. ``drafts``: what is appended and not committed is
    translated ahead, when no stream has anything else to do."""

    protocol: int
    stream: str
    policy: dict[str, Any]
    policies: dict[str, dict[str, tuple[float, float]]]
    source_unit: Literal["word", "character"]
    target_unit: Literal["word", "character"]
    revises: bool
    documents: bool = False
    drafts: bool = False


class Updated(Struct, tag="session.updated", tag_field="type"):
    """Answers `Update`."""

    policy: dict[str, Any]
    event_id: str | None = None


class Read(Struct, tag="read", tag_field="type"):
    """A source unit was read, the ``read``-th of the sentence. ``forced``: not by the policy, but since the model would
    end the sentence, or since a limit of the output was reached. ``time``: seconds since its first unit came."""

    sentence: int
    unit: str
    read: int
    forced: bool
    time: float


class Write(Struct, tag="write", tag_field="type"):
    """A target unit was written, after ``delay`` source units. ``extends``: it is the rest of the unit before, with no
    space between."""

    sentence: int
    unit: str
    written: int
    delay: int
    extends: bool
    time: float


class Revised(Struct, tag="revised", tag_field="type"):
    """An output that may change: it stands after the units written so far, in the place of the last one."""

    sentence: int
    text: str
    delay: int
    time: float


class SentenceEnd(Struct, tag="sentence", tag_field="type"):
    """In a document: a target sentence has ended, and so many source units are translated by now."""

    sentence: int
    translated: int
    time: float


class End(Struct, tag="end", tag_field="type"):
    """A sentence (or document) has ended. ``reason``: end_token, early_stop, max_units, max_tokens, empty (it had no
    source), error, or shutdown (of the service, with what is under way)."""

    sentence: int
    reason: str
    read: int
    written: int
    time: float


class Error(Struct, tag="error", tag_field="type"):
    """What went wrong. The socket is closed after it, but for ``sentence_failed`` and ``wrong_choice``."""

    code: str
    message: str
    sentence: int | None = None
    event_id: str | None = None


Answer = Created | Updated | Read | Write | Revised | SentenceEnd | End | Error
FROM_SERVICE: tuple[type[Struct], ...] = get_args(Answer)
_ENCODER = msgspec.json.Encoder()


def text_of(answer: Answer) -> str:
    """As it is sent."""
    return _ENCODER.encode(answer).decode()


def answers(told: Told) -> list[Answer]:
    """What a client is told of what has happened: nothing of drafts, and of limits."""
    event, state, time = told.event, told.state, round(told.event.seconds, 6)
    match event.kind:
        case "read" | "forced_read":
            return [Read(told.sentence, event.text.strip(), state.read, event.kind == "forced_read", time)]
        case "write" | "extend":
            return [Write(told.sentence, event.text, state.written, state.read, event.kind == "extend", time)]
        case "shown":
            return [Revised(told.sentence, event.text, state.read, time)]
        case "sentence":
            return [SentenceEnd(told.sentence, int(event.text), time)]
        case "stop":
            end = End(told.sentence, event.text, state.read, state.written, time)
            if told.error is None:
                return [end]
            return [Error("sentence_failed", f"{told.error}", told.sentence), end]
    return []


def schemas() -> dict[str, dict[str, Any]]:
    """The JSON schema of each message, by its type."""
    kinds = (*FROM_CLIENT, *FROM_SERVICE)
    return {str(kind.__struct_config__.tag): _schema(kind) for kind in kinds}


def _schema(kind: type[Struct]) -> dict[str, Any]:
    (schema,), components = msgspec.json.schema_components([kind], ref_template="{name}")
    found: dict[str, Any] = components[schema["$ref"]]
    return found
