"""The command: its subcommands, its errors, sweeps and plug-ins. The only room that imports Hydra; it may import
all others."""
