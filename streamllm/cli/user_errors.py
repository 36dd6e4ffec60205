"""What wrong input raises, for every command; it needs no Hydra."""

from streamllm.runs.folder import RunInUse

USER_ERRORS = (ValueError, OSError, ImportError, RunInUse)
"""The message is enough, no stack trace is needed."""


def user_error(error: BaseException) -> BaseException:
    """What the user did wrong: ``error`` itself, or what it wraps (Hydra wraps what constructors raise)."""
    cause = error.__cause__
    return cause if isinstance(cause, USER_ERRORS) and not isinstance(error, USER_ERRORS) else error


def printable(text: str) -> str:
    """One line of text, whatever was typed: control characters are shown as Python writes them."""
    text = " ".join(text.split())
    return text if text.isprintable() else "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)
