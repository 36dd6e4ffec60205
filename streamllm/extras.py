"""How an optional part is installed: the one place that knows the name of the distribution."""

from pathlib import Path

DISTRIBUTION = "streamllm-mlx"
"""On PyPI ``streamllm`` is another project's."""


def install(extra: str, checkout: Path = Path(__file__).parents[1]) -> str:
    """The command that brings an extra of ours: to a checkout where this is one, else to the installed package."""
    here = (checkout / "pyproject.toml").exists()
    return f"pip install -e '.[{extra}]'" if here else f"pip install '{DISTRIBUTION}[{extra}]'"
