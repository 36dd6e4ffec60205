"""The languages that a model was made for, as its folder says: the pair that it was trained on, in ``streamllm.json``,
or those of its model card (``language`` at the head of README.md, as the hub has it)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from streamllm.checked import parse_yaml
from streamllm.models.settings import SETTINGS

CARD = "README.md"
MOST = 1_000_000  # bytes of a card
MANY = ("multilingual", "mul")


@dataclass(frozen=True)
class Languages:
    """Codes, and the file that names them. With ``ordered`` they are the source and the target of a training."""

    codes: tuple[str, ...]
    file: Path
    ordered: bool = False

    def unlike(self, source: str, target: str) -> str:
        """Words for a data set that the model was not made for; "" for one that it was, or where codes cannot be
        compared ("deu" and "de")."""
        asked, known = [_primary(code) for code in (source, target)], [_primary(code) for code in self.codes]
        if not known or not {*known}.isdisjoint(MANY) or {len(code) for code in known} != {len(code) for code in asked}:
            return ""
        if asked == known if self.ordered else {*asked} <= {*known}:
            return ""
        made_for = " to ".join(known) if self.ordered else ", ".join(known)
        return (
            f"the data set is {source} to {target}, and the model was made for {made_for} ({self.file}): scores may "
            "say little, so look at the sentences"
        )


def languages_of(folder: Path, trained: Sequence[str] | None) -> Languages | None:
    """Those of a model's folder; ``trained`` is what its settings say. None where it says nothing."""
    if trained:
        return Languages(tuple(trained), folder / SETTINGS, ordered=True)
    card = folder / CARD
    try:
        head = _front(card)
    except (OSError, ValueError):  # a card is for people: whatever it holds, the model loads
        return None
    found = head.get("language") if isinstance(head, dict) else None
    codes = tuple(code for code in (found if isinstance(found, list) else [found]) if isinstance(code, str))
    return Languages(codes, card) if codes else None


def _front(card: Path) -> object:
    """What stands between the first two lines of dashes."""
    with card.open("rb") as file:
        text = file.read(MOST)
    if not text.startswith(b"---"):
        return None
    return parse_yaml(text.split(b"\n---", 1)[0].removeprefix(b"---"), most=10_000)


def _primary(code: str) -> str:
    return code.lower().replace("_", "-").split("-")[0]
