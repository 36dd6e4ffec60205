"""Serve a model and a policy to SimulEval's remote evaluator, over HTTP (docs/simuleval.md).

    python scripts/serve.py policy=waitk k=3 +port=2024

Model, policy and prompt are those of run.py's configuration, with the same keys; +port (0: any free one) and +host.
"""

import sys

import hydra
from omegaconf import DictConfig

import streamllm  # noqa: F401  first: it loads a BLAS, which must come before mlx
from entry import explained, launch
from streamllm.policies.bounded import bounded
from streamllm.serve import PORT, agent_server

PARTS = ("model", "prompt", "policy", "paradigm")


@hydra.main(version_base="1.3", config_path="../conf", config_name="run")
@explained
def main(cfg: DictConfig) -> None:
    try:
        parts = {key: hydra.utils.instantiate(cfg[key], _convert_="all") for key in PARTS}
        dataset = hydra.utils.instantiate(cfg.dataset)  # for its languages' units
        limits = hydra.utils.instantiate(cfg.limits)
        units = (dataset.source_unit, dataset.target_unit)
        model = parts["model"].load(parts["prompt"], *units, parts["paradigm"])
        policy = bounded(parts["policy"], cfg.min_lag, cfg.max_lag)
        host, port = cfg.get("host", "127.0.0.1"), cfg.get("port", PORT)
        with agent_server(model, policy, limits, host, port, cfg.seed) as server:
            print(f"serving {policy} at {server.address}; Ctrl-C ends it", flush=True)
            server.serve_forever()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    launch(main)
