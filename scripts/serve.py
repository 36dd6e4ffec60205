"""Serve a model and a policy to SimulEval's remote evaluator, over HTTP (docs/simuleval.md).

    python scripts/serve.py policy=waitk k=3 +port=2024

Model, policy and prompt are those of run.py's configuration, with the same keys; +port (0: any free one) and +host.
"""

import sys

import hydra
from configured import translator
from omegaconf import DictConfig

from entry import explained, launch
from streamllm.serve import PORT, agent_server


@hydra.main(version_base="1.3", config_path="../conf", config_name="run")
@explained
def main(cfg: DictConfig) -> None:
    try:
        model, policy, limits = translator(cfg)
        host, port = cfg.get("host", "127.0.0.1"), cfg.get("port", PORT)
        with agent_server(model, policy, limits, host, port, cfg.seed) as server:
            print(f"serving {policy} at {server.address}; Ctrl-C ends it", flush=True)
            server.serve_forever()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    launch(main)
