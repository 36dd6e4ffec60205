"""Made-up documents with what tools stumble over: empty sentences, odd marks, long hypotheses, names with dots."""

import random

from streamllm.metrics.longform import Document
from streamllm.records import Segment
from streamllm.units import Unit, split

WORDS = (
    "Der die das Hund, Katze. z.B. usw. (ein) - Straße «Ja» 3,5 1990's don't l'eau 'n e.g. und Äpfel ... … E-Mail ﬁn ½"
)
CHARACTERS = "今天 天气 很 好 。 ， hello Ok ー 3.5 （ ） ﬁ … 、"
RATE = 2.5


def made_up(seed: int, unit: Unit = "word", name: str = "talk", words: str | None = None) -> Document:
    """A document of one to nine sentences, with delays in words and times on a clock of `RATE` words a second."""
    draw = random.Random(seed)
    vocabulary = (words or (WORDS if unit == "word" else CHARACTERS)).split()
    count = draw.randint(1, 9)
    segments: list[Segment] = []
    units: list[str] = []
    read = 0
    for place in range(count):
        length = draw.randint(1, 14)
        inner = 0 < place < count - 1  # such a reference may be blank
        reference = [draw.choice(vocabulary) for _ in range(draw.randint(0 if inner else 1, 12))]
        text = (" " if unit == "word" or draw.random() < 0.5 else "").join(reference)
        text = text.replace(" ", "  ") if draw.random() < 0.2 else text
        segments.append(Segment(read, length, " ".join(["word"] * length), text))
        read += length
        written = [word for word in reference if draw.random() < 0.8]
        written += [draw.choice(vocabulary) for _ in range(draw.randint(0, 9))] if draw.random() < 0.3 else []
        units += [part for word in written for part in split(word, unit)] if draw.random() < 0.85 else []
    delays: list[int] = []
    elapsed: list[float] = []
    delay, now = 1, 0.0
    for _ in units:
        delay = min(read, delay + draw.choice([0, 0, 1, 1, 2, 3]))
        now = max(now, delay / RATE) + 0.3 * draw.random()
        delays.append(delay)
        elapsed.append(now)
    return Document(name, units, delays, segments, elapsed)


def run(seed: int, unit: Unit = "word", words: str | None = None) -> list[Document]:
    """Ten documents, the last without output, some with names that differ behind a dot only."""
    made = [made_up(100 * seed + i, unit, f"a{'/' if i % 2 else '.'}talk.{i}", words) for i in range(9)]
    return [*made, Document("nothing written", [], [], made[0].segments, [])]
