"""Sentence pairs to training batches. Everything random follows from (seed, epoch, block), so that a position in the
data is three numbers, the epoch, the block of pairs within it and the batch within that."""

import logging
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import NamedTuple, TypeVar, overload

from streamllm.check import number, probability, whole_number
from streamllm.data.joined import sentence_pairs
from streamllm.prompt import PromptTokens
from streamllm.records import Example
from streamllm.training.batch import Batch, Encoded, pad
from streamllm.training.bpe import BPEDropout
from streamllm.training.documents import Documents, seen
from streamllm.training.paths import RANDOM, RandomPath
from streamllm.training.sources import Source, Tokenized, Whole, begins_document
from streamllm.units import Unit, pieces

log = logging.getLogger(__name__)

T = TypeVar("T")
K = int | str | RandomPath
FULL = "full"


class Planned(NamedTuple):
    """A stream before it is laid out: how many tokens each side will have, how many sentence pairs there are, and what
    lays it out. So an epoch is cut into batches when only the lengths are known."""

    source: int
    target: int
    sentences: int
    encoded: Callable[[], Encoded]


def _tokens_of(planned: Planned) -> int:
    return planned.source + planned.target


class Batches(Sequence[tuple[Batch, int]]):
    """The batches of a block, each laid out when it is asked for: this process's rows, and how many labels there are in
    the rows of all processes.

    Args:
        header: tokens of the target header; nothing is learned from them.
    """

    def __init__(self, groups: Sequence[Sequence[Planned]], header: int, rank: int = 0, world: int = 1):
        self._groups = [group for group in groups if len(group) >= world]
        self._header, self._rank, self._world = header, rank, world

    def __len__(self) -> int:
        return len(self._groups)

    @overload
    def __getitem__(self, index: int) -> tuple[Batch, int]: ...

    @overload
    def __getitem__(self, index: slice) -> list[tuple[Batch, int]]: ...

    def __getitem__(self, index: int | slice) -> tuple[Batch, int] | list[tuple[Batch, int]]:
        if isinstance(index, slice):
            return [self._made(group) for group in self._groups[index]]
        return self._made(self._groups[index])

    def _made(self, group: Sequence[Planned]) -> tuple[Batch, int]:
        rows = [planned.encoded() for planned in group[self._rank :: self._world]]
        return pad(rows), sum(planned.target + 1 - self._header for planned in group)


def values_of_k(given: int | str | Sequence[int | str], name: str, words: Sequence[str] = (FULL,)) -> list[int | str]:
    """One value of k or several, as a list; ``words``: which are accepted besides numbers.

    Raises:
        ValueError: something in it is no k.
    """
    values = list(given) if isinstance(given, Sequence) and not isinstance(given, str) else [given]
    if not values or any(k not in words and not (isinstance(k, int) and k >= 1) for k in values):
        accepted = " or ".join(map(repr, words))
        raise ValueError(f"{name} is {given!r}; each is a whole number of at least 1, or {accepted}")
    return values


def tags_of(name: str, given: object, null: str = "for none") -> list[str]:
    """Tags for a latency as they stand in the header; none of None.

    Raises: ValueError: it is no list of tags; ``null`` says what None means.
    """
    if given is None:
        return []
    if not isinstance(given, Sequence) or isinstance(given, str) or not given or not all(map(_is_tag, given)):
        raise ValueError(f"{name} is {given!r}; accepted is a list of tags, such as [low,medium,high], or null {null}")
    return [str(tag) for tag in given]


def _is_tag(tag: object) -> bool:
    return isinstance(tag, str | int) and not isinstance(tag, bool) and bool(str(tag))


@dataclass(frozen=True)
class DataConfig:
    """How sentence pairs become batches.

    Args:
        k: values of k that are drawn from, one for each example; "full" is the whole source with its footer, "random"
            a read/write path of its own for each sentence (docs/training.md).
        batch_tokens: of a batch in one process: its pairs times the tokens of the longest of them, source and target.
            Padded, it has more where the longest source and the longest target are not of one pair.
        max_tokens: pairs with a longer stream, headers included, are left out, of the validation data too. The log says
            of how many of the first block, and of how many of the validation data, that is true.
        bpe_dropout: probability of leaving out a merge in the training data.
        source_mask: probability that a source word is replaced by a random word of the batch's own sentence.
        buffer: pairs that are held at a time: they are shuffled, and batches are of pairs of similar length among
            them. None holds the whole corpus.
        cache: a folder for tokens, so that they are made once and shuffled as a whole. With ``bpe_dropout``
            or ``source_mask`` they differ in every epoch, and nothing is kept.
        documents: how pairs are joined to streams of several sentences; None leaves each alone.
        latencies: tags for ``{latency}`` in ``prompt.target_header``; each stream asks for one of them. None leaves
            the prompt's own. What a tag means, the objective says.
    """

    k: int | str | Sequence[int | str] = (1, 2, 3, 4, 5, 7, 9, FULL)
    batch_tokens: int = 2048
    max_tokens: int = 256
    bpe_dropout: float = 0.0
    source_mask: float = 0.0
    buffer: int | None = None
    cache: str | None = None
    documents: Documents | None = None
    latencies: Sequence[str | int] | None = None

    def __post_init__(self) -> None:
        whole_number("data.batch_tokens", self.batch_tokens, of="tokens")
        whole_number("data.max_tokens", self.max_tokens, of="tokens")
        whole_number("data.buffer", self.buffer, of="pairs", null="for the whole corpus")
        number("data.bpe_dropout", self.bpe_dropout, least=0, below=1)
        probability("data.source_mask", self.source_mask)
        self.ks  # noqa: B018
        self.tags  # noqa: B018

    @property
    def ks(self) -> list[int | str]:
        return values_of_k(self.k, "data.k", words=(FULL, RANDOM))

    @property
    def tags(self) -> list[str]:
        """``latencies`` as they stand in the header."""
        return tags_of("data.latencies", self.latencies)


class TrainingData:
    """Batches of sentence pairs, the same for every process of a distributed run up to its own rows.

    Args:
        examples: sentence pairs, or documents, which are taken as their sentence pairs.
    """

    def __init__(
        self,
        examples: Sequence[Example] | Source,
        prompt: PromptTokens,
        config: DataConfig,
        seed: int,
        dropout: BPEDropout | None = None,
    ):
        self.source: Source = Whole([*sentence_pairs(examples)]) if isinstance(examples, Sequence) else examples
        self.prompt = prompt
        self.config = config
        self.seed = seed
        self.dropout = dropout
        self._headers = [prompt.header_asking(tag) for tag in config.tags]
        self._count = lru_cache(1 << 18)(lambda text: len(prompt.encode(text)))
        self._count_later = lru_cache(1 << 18)(lambda word: len(prompt.encode(prompt.spaced(word, False, "word"))))

    def tokenize(self, example: Example, rng: random.Random | None = None, begins: bool = True) -> Tokenized:
        """The tokens of each unit; with ``rng``, regularised. ``begins``: the pair is the first of its stream."""
        prompt = self.prompt
        source = pieces(example.source, prompt.source_unit)
        target = pieces(example.reference, prompt.target_unit)
        if rng is not None and self.config.source_mask:
            source = [rng.choice(source) if rng.random() < self.config.source_mask else word for word in source]
        return Tokenized(
            [
                self._tokens(prompt.spaced(word, begins and i == 0, prompt.source_unit), rng)
                for i, word in enumerate(source)
            ],
            [
                self._tokens(prompt.spaced(word, begins and i == 0, prompt.target_unit), rng)
                for i, word in enumerate(target)
            ],
            begins_document(example),
        )

    def encode(self, pair: Example | Tokenized, k: K, rng: random.Random | None = None, latency: int = -1) -> Encoded:
        """One pair in tokens; with ``rng``, regularised. ``latency``: which of ``data.latencies`` it asks for."""
        if isinstance(pair, Example):
            pair = self.tokenize(pair, rng)
        source, target = len(pair.source), len(pair.target)
        early = None if rng is None else f"{k}"
        if isinstance(k, RandomPath):
            units, lag = [min(count, source + 1) for count in k.counts(source, target)], 0
        else:
            units, lag = list(range(target + 1)), source + 1 if k == FULL else int(k)
        return self._encoded([pair], [units], [[source + 1] * (target + 1)], lag, early, latency=latency)

    def encode_stream(
        self,
        pairs: Sequence[Example | Tokenized],
        k: K,
        held: bool,
        rng: random.Random | None = None,
        latency: int = -1,
    ) -> Encoded:
        """Several pairs as one stream (`documents.seen`); with ``rng`` and ``latency`` as `encode`.

        Pairs that are tokenised already are as they are at the beginning of a stream.
        """
        tokenized = [
            self.tokenize(pair, rng, begins=number == 0) if isinstance(pair, Example) else pair
            for number, pair in enumerate(pairs)
        ]
        lengths = [len(pair.source) for pair in tokenized], [len(pair.target) for pair in tokenized]
        lag = k if isinstance(k, RandomPath) else None if k == FULL else int(k)
        units, whole = seen(*lengths, lag, held), seen(*lengths, None, held)
        # Where reading goes on, some is seen of the sentences that follow.
        whole = [[*map(max, *both)] for both in zip(units, whole, strict=True)]
        return self._encoded(tokenized, units, whole, 0, None if rng is None else f"{k}/{held}", held, latency)

    def _encoded(
        self,
        pairs: list[Tokenized],
        units_of: list[list[int]],
        whole_of: list[list[int]],
        k: int,
        early: str | None,
        held: bool = False,
        latency: int = -1,
    ) -> Encoded:
        """Some pairs in one stream.

        Args:
            units_of: of each pair, the unit of each target unit and of the end tokens after it.
            whole_of: the same where each is predicted from its whole source sentence.
            early: what decides which tokens arrive with their own unit; None is none.
            held: whether each source has a footer, a unit of its own; else the last one has.
        """
        prompt = self.prompt
        pieces_read: list[list[int]] = []
        for place, pair in enumerate(pairs, 1):
            pieces_read += pair.source
            if held or place == len(pairs):
                pieces_read.append(prompt.source_footer)
        tokens, units = list(prompt.source_header), [-1] * len(prompt.source_header)
        for i, piece in enumerate(pieces_read):
            tokens += piece
            units += [i] * len(piece)

        output = list(prompt.target_header if latency < 0 else self._headers[latency])
        header = len(output)
        output_units, whole_units = [units_of[0][0]] * header, [whole_of[0][0]] * header
        for pair, units_of_pair, whole_of_pair in zip(pairs, units_of, whole_of, strict=True):
            ends = [[prompt.end_token]] * (len(units_of_pair) - len(pair.target))
            for piece, unit, whole in zip([*pair.target, *ends], units_of_pair, whole_of_pair, strict=True):
                output += piece
                output_units += [unit] * len(piece)
                whole_units += [whole] * len(piece)
        labels = [-1] * (header - 1) + output[header:]
        own, predicted = output_units[:-1], output_units[1:]
        arrival = predicted
        if early is not None:  # a generator of its own: the order of the data must not depend on this
            drawn = random.Random(f"{early}/{output}")
            arrival = [o if drawn.random() < 0.5 else p for o, p in zip(own, predicted, strict=True)]
        return Encoded(tokens, units, output[:-1], predicted, arrival, whole_units[1:], labels, k, len(pairs), latency)

    def _tokens(self, text: str, rng: random.Random | None) -> list[int]:
        if self.dropout is None or rng is None:
            return self.prompt.encode(text)
        return self.dropout.tokens(text, rng)

    @property
    def count(self) -> int | None:
        """How many blocks an epoch has; None where nothing knows before its end."""
        return self.source.count

    def blocks(self, epoch: int, start: int = 0, rank: int = 0, world: int = 1) -> Iterator[Batches]:
        """This process's batches of an epoch, block by block from number ``start`` on, in order: shuffled, each of
        pairs of similar length. A batch is laid out when it is asked for, unless its tokens are drawn.

        All processes cut the same global batches of ``world * batch_tokens`` and take every world-th row;
        the number beside a batch counts the labels in all processes' rows.
        """
        for block, pairs in enumerate(self.source.blocks(epoch, start), start):
            rng = random.Random(f"{self.seed}/{epoch}/{block}" if block else f"{self.seed}/{epoch}")
            kept = self.plan(pairs, rng)
            if epoch == block == rank == 0:
                self._say_left_out("the first %d pairs", len(pairs), sum(one.sentences for one in kept))
            yield self._batches(kept, rng, rank, world)

    def epoch(self, epoch: int, rank: int = 0, world: int = 1) -> list[tuple[Batch, int]]:
        """All batches of an epoch, see `blocks`."""
        return [batch for block in self.blocks(epoch, 0, rank, world) for batch in block]

    def encode_all(self, pairs: Sequence[Example | Tokenized], rng: random.Random) -> list[Encoded]:
        """As `plan`, in tokens."""
        return [planned.encoded() for planned in self.plan(pairs, rng)]

    def plan(self, pairs: Sequence[Example | Tokenized], rng: random.Random) -> list[Planned]:
        """Pairs, or streams of them, each with a k of its own, without those that are too long."""
        ks = self.config.ks

        def drawn() -> K:
            k = rng.choice(ks)
            return RandomPath(rng.getrandbits(32)) if k == RANDOM else k

        if (joined := self.config.documents) is None:
            found = [self._planned([pair], drawn(), None, rng) for pair in pairs]
        else:
            streams = list(joined.join(pairs, rng, begins_document))
            found = [self._planned(one, drawn(), rng.random() < joined.held, rng) for one in streams]
        return [one for one in found if max(one.source, one.target) <= self.config.max_tokens]

    def _planned(self, pairs: Sequence[Example | Tokenized], k: K, held: bool | None, rng: random.Random) -> Planned:
        """One pair (``held`` is None), or a stream of several. Where ``rng`` draws tokens they are laid out now, since
        the next stream draws after them."""
        latency = rng.randrange(len(self._headers)) if self._headers else -1
        if held is None:
            encoded = partial(self.encode, pairs[0], k, rng, latency)
        else:
            encoded = partial(self.encode_stream, pairs, k, held, rng, latency)
        if self.dropout is not None or self.config.source_mask:
            made = encoded()
            return Planned(len(made.source), len(made.target), made.sentences, lambda: made)
        prompt = self.prompt
        source, target = len(prompt.source_header), len(prompt.target_header)
        for place, pair in enumerate(pairs):
            if isinstance(pair, Tokenized):
                source, target = source + sum(map(len, pair.source)), target + sum(map(len, pair.target))
            else:
                source += self._length(pair.source, prompt.source_unit, place == 0)
                target += self._length(pair.reference, prompt.target_unit, place == 0)
        source += len(prompt.source_footer) * (len(pairs) if held else 1)
        if held is not None:
            target += len(pairs)  # end tokens between sentences and at the end, see `seen`; the very last is not fed
        return Planned(source, target, len(pairs), encoded)

    def _length(self, text: str, unit: Unit, begins: bool) -> int:
        """How many tokens the units of a text have; ``begins``: the first of them begins its stream."""
        units = pieces(text, unit)
        if unit != "word":
            return sum(map(self._count, units))
        length = sum(map(self._count_later, units))
        if begins and units and not self.prompt.text.leading_space:
            length += self._count(units[0]) - self._count_later(units[0])
        return length

    def _short_enough(self, encoded: list[Encoded]) -> list[Encoded]:
        return [e for e in encoded if max(len(e.source), len(e.target)) <= self.config.max_tokens]

    def _say_left_out(self, of: str, pairs: int, kept: int) -> None:
        if kept < pairs:
            log.info(
                f"%d of {of} are left out: more than %d tokens (data.max_tokens) in a stream",
                *(pairs - kept, pairs, self.config.max_tokens),
            )

    def _batches(self, kept: list[Planned], rng: random.Random, rank: int, world: int) -> Batches:
        # Jittered lengths mix the pairs of a batch anew in every epoch.
        kept.sort(key=lambda e: ((e.source + rng.randrange(3)) // 3, e.target + rng.random()))
        groups = list(self.cut(kept, _tokens_of, world))
        rng.shuffle(groups)
        return Batches(groups, len(self.prompt.target_header), rank, world)

    def fixed(self, *ks: int | str) -> Iterator[Batch]:
        """The data once for each k, in order of length, without regularisation and without what is too long: for
        validation.

        Raises:
            ValueError: nothing is left.
        """
        pairs = [pair for block in self.source.blocks(0, 0) for pair in block]
        encoded = [self._short_enough([self.encode(pair, k) for pair in pairs]) for k in ks]
        self._say_left_out("the %d pairs of the validation data", len(pairs), len(encoded[0]))
        if not encoded[0]:
            raise ValueError("no sentence pair of the validation data is left: see data.max_tokens and validation.…")
        return (pad(group) for one in encoded for group in self.cut(sorted(one, key=len), len))

    def cut(self, items: Sequence[T], tokens: Callable[[T], int], world: int = 1) -> Iterator[list[T]]:
        """Streams in groups of at most ``world`` times ``batch_tokens``, in their order.

        Args:
            tokens: of one stream, source and target.
        """
        group: list[T] = []
        longest = 0
        for item in items:
            size = tokens(item)
            longest_now = max(longest, size)
            if group and longest_now * (len(group) + 1) > self.config.batch_tokens * world:
                yield group
                group, longest_now = [], size
            group.append(item)
            longest = longest_now
        if group:
            yield group
