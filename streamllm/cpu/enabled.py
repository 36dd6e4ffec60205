"""Whether this room does anything: ``$STREAMLLM_CPU``."""

import os

CHOICES = ("fast", "plain")


def enabled() -> bool:
    """Raises: ValueError: ``$STREAMLLM_CPU`` is none of `CHOICES`."""
    chosen = os.environ.get("STREAMLLM_CPU") or "fast"
    if chosen not in CHOICES:
        raise ValueError(
            f"STREAMLLM_CPU is {chosen!r}; accepted are {' and '.join(CHOICES)} (plain: correct, only slower)"
        )
    return chosen == "fast"
