"""What all sentences of a model begin with: the keys and values of the source header, computed once.

Invariant: a memory that begins with a prefix holds what it would hold had it been fed those tokens.
"""

from collections.abc import Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, Any
from weakref import ref

from mlx.utils import tree_flatten

if TYPE_CHECKING:  # the cache needs mlx-lm, which is slow to import
    from streamllm.cache.dual import DualStreamingCache

FEWEST = 8
"""Tokens of a header from which on it is shared: fewer cost as little to feed with the first unit as to copy."""


class Prefix:
    """The first source tokens of every sentence, fed once.

    A source token attends to source alone, so these are the same whatever follows. The target's header has no prefix:
    it attends to the source that has been read, which is another one in each sentence.

    Args:
        model: that they were fed to.
        tokens: of the source header.
        caches: those of a memory that holds these tokens and nothing else. They are never fed more.
    """

    def __init__(self, model: Any, tokens: Sequence[int], caches: "Sequence[DualStreamingCache]"):
        self.tokens, self.caches = list(tokens), caches
        self._weights = [ref(array) for array in _weights(model)]

    def __len__(self) -> int:
        return len(self.tokens)

    def begins(self, tokens: Sequence[int]) -> bool:
        """Whether these tokens begin with it."""
        return list(tokens[: len(self.tokens)]) == self.tokens

    def is_of(self, model: Any, header: Sequence[int]) -> bool:
        """Whether this is the prefix of a header in a model: a step of training, or an adapter, makes it another one.
        A weight that is written in place is not noticed; MLX's optimizers put new arrays in their places."""
        pairs = zip_longest(self._weights, _weights(model))
        return self.tokens == list(header) and all(known and known() is now for known, now in pairs)


def _weights(model: Any) -> list[Any]:
    return [array for _, array in tree_flatten(model.parameters())]  # type: ignore[misc]
