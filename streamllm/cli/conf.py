"""Where the configurations are: in the wheel beside the package's modules, in a checkout the one folder at its top."""

from pathlib import Path

PACKAGE = Path(__file__).parents[1]
CONF = next(folder for folder in (PACKAGE / "conf", PACKAGE.parent / "conf") if (folder / "run.yaml").exists())
