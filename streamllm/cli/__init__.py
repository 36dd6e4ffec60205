"""The command: its subcommands, its errors, sweeps and plug-ins. The only room that imports Hydra; it may import
all others."""


def main() -> None:
    """`streamllm.cli.main.main`. The script of the other ``streamllm`` on PyPI calls this name: where it has replaced
    ours, ours can say so."""
    from streamllm.cli.main import main as command

    command()
