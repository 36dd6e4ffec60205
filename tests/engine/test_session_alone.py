"""A session as a small library of its own, without a policy or a loop. Also the example of how to use it so."""

from streamllm.engine.session import Session
from streamllm.models.loading import ModelConfig


def draft(session: Session) -> str:
    return " ".join(emission.unit or "" for emission in session.draft())


def test_a_chat_reads_on_while_it_has_written() -> None:
    model = ModelConfig("bundled:tiny-en-de").load()
    session = model.session()
    for word in ["a", "man", "is"]:
        session.read(word)
    drafts = [draft(session)]  # to be shown while the user types
    fed = session.fed_tokens
    said = [session.write().unit, session.write().unit]
    assert said == drafts[0].split()[:2] == ["Ein", "Mann"]
    assert session.fed_tokens == fed, "what a draft knows costs nothing to write"

    for word in ["riding", "a", "bike", "."]:
        session.read(word)
        drafts.append(draft(session))
    session.end_source()
    while (unit := session.write().unit) is not None:
        said.append(unit)
    assert said == ["Ein", "Mann", "fährt", "Fahrrad."]
    assert len(set(drafts)) == len(drafts), "each word that is read changes what it would say"

    at_once = model.session()
    for word in ["a", "man", "is", "riding", "a", "bike", "."]:
        at_once.read(word)
    at_once.end_source()
    assert session.source_tokens == at_once.source_tokens, "what was read is fed once, although it has written"
