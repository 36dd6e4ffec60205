"""How long load_runs takes over a folder of many runs: python scripts/bench_load_runs.py [--runs 1000]

The runs are made up, in a temporary directory: configurations and metrics are those of run.py in form and size.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf, open_dict

from streamllm.metrics.summary import summarise
from streamllm.records import Event, Trace
from streamllm.runs.folder import CONFIG, METRICS, RunFolder
from streamllm.runs.load import load_runs

CONF = Path(__file__).parent.parent / "conf"


def configuration() -> dict[str, object]:
    """What run.py writes into run.yaml."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("run", return_hydra_config=True)
    HydraConfig.instance().set_config(cfg)
    with open_dict(cfg):
        del cfg["hydra"]
    return OmegaConf.to_container(cfg, resolve=True)  # type: ignore[return-value]


def make_runs(root: Path, count: int) -> None:
    config = configuration()
    events = (Event("read", "ein", 0.1), Event("write", "a", 0.2), Event("stop", "end_token", 0.3))
    trace = Trace("1", "ein Hund", "a dog", ("a",), (1,), (0.2,), events, 2, "a", {"seconds": 0.3})
    metrics = json.dumps(summarise([trace], "en", "word"), indent=2)
    text = yaml.safe_dump(config, sort_keys=False)
    for number in range(count):
        folder = RunFolder.of(config | {"seed": number}, "sample-waitk", root).path
        folder.mkdir()
        (folder / CONFIG).write_text(text.replace("\nseed: 0\n", f"\nseed: {number}\n"), encoding="utf-8")
        (folder / METRICS).write_text(metrics, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000, help="run folders (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="measurements (default: %(default)s)")
    arguments = parser.parse_args()
    import pandas  # noqa: F401  its import is not what is measured

    with tempfile.TemporaryDirectory() as name:
        make_runs(Path(name), arguments.runs)
        wall, cpu = [], []
        for _ in range(arguments.repeats):
            clock, used = time.perf_counter(), time.process_time()
            table = load_runs(name)
            wall.append(time.perf_counter() - clock)
            cpu.append(time.process_time() - used)
    print(
        f"load_runs, {len(table)} runs, {len(table.columns)} columns: median {statistics.median(wall):.2f} s "
        f"({statistics.median(cpu):.2f} s of CPU) of {arguments.repeats}"
    )


if __name__ == "__main__":
    main()
