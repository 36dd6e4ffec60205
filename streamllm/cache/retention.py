"""How much of a long stream is kept, and how precisely: a record that `streamllm.engine.paradigms.windows` acts on."""

from dataclasses import dataclass

from streamllm.check import is_whole

BITS = (4, 8)
GROUP_SIZES = (32, 64, 128)


@dataclass(frozen=True)
class Retention:
    """What the memory of a sentence keeps. By default everything, as it is.

    Args:
        max_source, max_target: tokens of each stream that are held at most, header included; None is no limit.
            See `streamllm.engine.paradigms.forgetting.Forgetting` for what is forgotten, and when.
        sinks: how many of the first tokens of each stream are never forgotten (attention sinks, Xiao et al. 2023,
            arXiv 2309.17453); a header that is longer stays as a whole.
        kv_bits: 8 or 4 quantises keys and values; None leaves them as they are.
        kv_group_size: how many numbers share a scale; 32, 64 or 128.

    Raises:
        ValueError: a value is out of range.
    """

    max_source: int | None = None
    max_target: int | None = None
    sinks: int = 4
    kv_bits: int | None = None
    kv_group_size: int = 64

    def __post_init__(self) -> None:
        for name in ("max_source", "max_target"):
            size = getattr(self, name)
            if size is not None and (not is_whole(size) or size < 1):
                raise ValueError(
                    f"{name} is {size!r}; accepted are a number of tokens, at least 1, and null (no limit)"
                )
        if not is_whole(self.sinks) or self.sinks < 0:
            raise ValueError(f"sinks is {self.sinks!r}; accepted is a number of tokens, at least 0")
        check_scheme(8 if self.kv_bits is None else self.kv_bits, self.kv_group_size)

    @property
    def has_windows(self) -> bool:
        return self.max_source is not None or self.max_target is not None

    @property
    def keeps_all(self) -> bool:
        """Whether memories are the usual ones."""
        return not self.has_windows and self.kv_bits is None


def check_scheme(bits: int, group_size: int) -> None:
    """Raises: ValueError: mlx-lm has no such quantisation."""
    if not is_whole(bits) or bits not in BITS:
        raise ValueError(f"kv_bits is {bits!r}; accepted are 8, 4 and null (keys and values as they are)")
    if not is_whole(group_size) or group_size not in GROUP_SIZES:
        raise ValueError(f"kv_group_size is {group_size!r}; accepted are 32, 64 and 128")
