"""Serve a model and a policy to SimulEval's remote evaluator, over HTTP (docs/simuleval.md).

    streamllm serve policy=waitk k=3 port=2024

Model, policy and prompt are those of `streamllm run`, with the same keys; port (0: any free one) and host.
"""

import sys

import hydra
from omegaconf import DictConfig

from streamllm.cli.conf import CONF
from streamllm.cli.configured import translator
from streamllm.cli.errors import explained, launch
from streamllm.cli.keys import ServeKeys, checked
from streamllm.live.simuleval import agent_server


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="serve")
@explained
def main(cfg: DictConfig) -> None:
    try:
        keys = checked(cfg, ServeKeys)[1]
        model, policy, limits = translator(cfg)
        with agent_server(model, policy, limits, keys.host, keys.port, keys.seed) as server:
            print(f"serving {policy} at {server.address}; Ctrl-C ends it", flush=True)
            server.serve_forever()
    except KeyboardInterrupt:
        sys.exit(130)


def command() -> None:
    launch(main, "serve")
