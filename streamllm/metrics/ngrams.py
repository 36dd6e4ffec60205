"""N-grams that the two sides of sentences have in common, of many sentences at once: one sort of whole numbers counts
those of an order, where sets and counters of each sentence take three times as long."""

from collections.abc import Hashable, Iterable, Sequence
from itertools import chain

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.int64]


def of_characters(texts: Sequence[str]) -> Numbers:
    """The characters of texts, one text behind the other, as numbers from 0 on."""
    codes = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), np.uint32)
    kinds = np.unique(codes)
    places = np.zeros(int(kinds[-1]) + 1 if len(kinds) else 0, np.int64)
    places[kinds] = np.arange(len(kinds))
    found: Numbers = places[codes]
    return found


def of_items(sequences: Iterable[Sequence[Hashable]]) -> Numbers:
    """The items of sequences, one sequence behind the other, as numbers from 0 on."""
    kinds: dict[Hashable, int] = {}
    return np.array([kinds.setdefault(item, len(kinds)) for item in chain.from_iterable(sequences)], np.int64)


def lengths_of(sequences: Iterable[Sequence[Hashable]]) -> Numbers:
    return np.array([len(sequence) for sequence in sequences], np.int64)


def how_many(lengths: Numbers, orders: int) -> Numbers:
    """How many n-grams of each order sequences have: (sequences, orders)."""
    many: Numbers = np.maximum(lengths[:, None] - np.arange(orders), 0)
    return many


def shared(items: Numbers, lengths: Numbers, orders: int) -> Numbers:
    """How many n-grams of each order the two sides of each sentence have in common, each as often as both have it.

    Args:
        items: numbers from 0 on, of all sequences one behind the other: one side of all sentences, then the other.
        lengths: of the sequences, (2 * sentences,).

    Returns: (sentences, orders).
    """
    sentences = len(lengths) // 2
    bits = (2 * sentences).bit_length()  # of the number of a sequence
    owners = np.repeat(np.arange(2 * sentences), lengths)
    # The side is the lowest bit, so that n-grams of a sentence that are alike lie together once all are sorted.
    owners = (owners % sentences << 1) + owners // sentences
    left = np.repeat(np.cumsum(lengths), lengths) - np.arange(len(items))  # items to the end of the sequence
    found = np.zeros((sentences, orders), np.int64)
    base = kinds = int(items.max(initial=0)) + 1
    grams, at = items, np.arange(len(items))
    for order in range(1, orders + 1):
        if order > 1:  # each one item longer, where there is one
            longer = left[at] >= order
            grams, at = grams[longer], at[longer]
            if kinds * base >> 63 - bits:  # other numbers for the same n-grams, so that longer ones are numbers, too
                different, grams = np.unique(grams, return_inverse=True)
                kinds = len(different)
            grams, kinds = grams * base + items[at + order - 1], kinds * base
        if not len(at):
            break
        every = np.sort((grams << bits) + owners[at])
        firsts = np.flatnonzero(np.diff(every >> 1, prepend=-1))
        counts = np.diff(firsts, append=len(every))
        of_one = np.add.reduceat(every & 1, firsts)
        both = np.minimum(of_one, counts - of_one)
        owner = (every[firsts] & (1 << bits) - 1) >> 1
        found[:, order - 1] = np.bincount(owner, both, sentences)
    return found
