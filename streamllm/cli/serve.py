"""Serve a model and a policy to SimulEval's remote evaluator, over HTTP (docs/simuleval.md).

    streamllm serve policy=waitk k=3 port=2024

Model, policy and prompt are those of `streamllm run`, with the same keys; port (0: any free one) and host.
"""

import sys
from dataclasses import dataclass

import hydra
from omegaconf import DictConfig

from streamllm.cli.conf import CONF
from streamllm.cli.configured import translator
from streamllm.cli.errors import explained, launch
from streamllm.cli.keys import RunKeys, checked
from streamllm.cli.main import as_module
from streamllm.live.simuleval import agent_server


@dataclass(eq=False, repr=False, kw_only=True)
class ServeKeys(RunKeys):
    """Of ``conf/serve.yaml``.

    Args:
        host: the address to listen on; 0.0.0.0 is any of this machine.
        port: 0 takes any free one.
    """

    host: str
    port: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.port < 2**16:
            raise ValueError(f"port is {self.port}; it is a whole number from 0 (any free one) to {2**16 - 1}")
        if not self.host:
            raise ValueError("host is empty; give a name or an address, such as 127.0.0.1")


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


if __name__ == "__main__":
    as_module("serve")
