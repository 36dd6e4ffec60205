"""Serve a model to many live streams over WebSockets, and to SimulEval's remote evaluator over HTTP (docs/serve.md,
docs/simuleval.md).

    streamllm serve policy=waitk k=3 port=2024

Model, policy and prompt are those of `streamllm run`, with the same keys; port (0: any free one) and host; what clients
may choose and how much they may ask. Without the extra ``serve`` it speaks SimulEval's protocol alone.
"""

import copy
import gc
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from streamllm.check import whole_number
from streamllm.cli.annotations import Part
from streamllm.cli.conf import CONF
from streamllm.cli.configured import translator
from streamllm.cli.errors import explained, launch
from streamllm.cli.keys import RunKeys, checked, made
from streamllm.cli.main import as_module
from streamllm.cli.missing_keys import recomposed
from streamllm.extras import install
from streamllm.live.access import Access, is_loopback
from streamllm.live.simuleval import agent_server
from streamllm.models.model import StreamingModel
from streamllm.policies.bounded import bounded
from streamllm.records import Policy

NEEDED = ("starlette", "uvicorn", "websockets")
"""What the extra brings."""


@dataclass(eq=False, repr=False, kw_only=True)
class ServeKeys(RunKeys):
    """Of ``conf/serve.yaml``.

    Args:
        host: the address to listen on; another than this machine's own needs a token.
        port: 0 takes any free one.
        token: that clients have to show, at least 16 characters; better set by the variable STREAMLLM_TOKEN, since a
            command line can be read by others.
        origins: pages that may connect besides our own, such as https://talks.example.
        choices: policies that clients may choose besides the one given, each with the ranges of its numbers.
        streams_per_forward: how many go through one forward at most, those whose input came first; null takes all.
        log: a file that gets a JSON line for each thing that happens: a stream opens, a sentence ends, a client is
            refused; - is standard error; null writes none.
        traces: a folder for what streams are told, in a run folder for each; null keeps nothing.
        quotas: how much clients may ask.
    """

    host: str
    port: int
    token: str | None
    origins: Sequence[str]
    choices: Mapping[str, Any]
    streams_per_forward: int | None
    log: str | None
    traces: str | None
    quotas: Part

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.port < 2**16:
            raise ValueError(f"port is {self.port}; it is a whole number from 0 (any free one) to {2**16 - 1}")
        if not self.host:
            raise ValueError("host is empty; give a name or an address, such as 127.0.0.1")
        whole_number("streams_per_forward", self.streams_per_forward, of="streams", null="for all that have work")
        for name, ranges in self.choices.items():
            for number, bounds in (ranges or {}).items():
                _check_range(f"choices.{name}.{number}", bounds)


def _check_range(key: str, bounds: Any) -> None:
    numbers = isinstance(bounds, list) and all(
        isinstance(each, int | float) and not isinstance(each, bool) for each in bounds
    )
    if not numbers or len(bounds) != 2 or bounds[0] > bounds[1]:
        raise ValueError(f"{key} is {bounds!r}; it is the least and the most that a client may choose, such as [1,20]")


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="serve")
@explained
def main(cfg: DictConfig) -> None:
    values, keys = checked(cfg, ServeKeys)
    if all(find_spec(name) for name in NEEDED):
        serve(cfg, values, keys)
    else:
        serve_simuleval(cfg, keys)


def serve_simuleval(cfg: DictConfig, keys: ServeKeys) -> None:
    """SimulEval's protocol alone."""
    if not is_loopback(keys.host):
        raise ValueError(
            f"host is {keys.host}, and SimulEval's protocol, which has no token, is for this machine alone: leave host "
            f"at 127.0.0.1, or {install('serve')} for a service with a token"
        )
    try:
        model, policy, limits = translator(cfg)
        with agent_server(model, policy, limits, keys.host, keys.port, keys.seed) as server:
            print(f"serving {policy} at {server.address}; Ctrl-C ends it", flush=True)
            print(f"SimulEval's protocol alone; for live streams: {install('serve')}", file=sys.stderr, flush=True)
            server.serve_forever()
    except KeyboardInterrupt:
        sys.exit(130)


def serve(cfg: DictConfig, values: Mapping[str, Any], keys: ServeKeys) -> None:
    """The service."""
    from streamllm.live.journal import Journal
    from streamllm.live.server import Application, listening, server_of
    from streamllm.live.service import Choices, Service

    access = Access(keys.host, keys.token, tuple(keys.origins))
    try:
        with closing(listening(keys.host, keys.port)) as listener, Journal(keys.log) as journal:
            model, policy, limits = translator(cfg)
            choices = Choices(_choices(cfg, keys))
            keep = None if keys.traces is None else _keeping(Path(keys.traces), values, model)
            quotas, most = made(cfg.quotas, "quotas"), keys.streams_per_forward
            service = Service(model, choices, limits, quotas, keys.seed, keep, most, journal)
            server = server_of(Application(service, access, f"{policy} [text -> text]"))
            host, port = listener.getsockname()[:2]
            at = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            print(f"serving {policy} at http://{at}; Ctrl-C ends it", flush=True)
            journal.write("started", address=at, policy=str(policy), model=str(cfg.model.path))
            gc.collect()
            gc.freeze()  # else Python's search for cycles goes through all that is loaded, while streams wait
            server.run(sockets=[listener])
    except KeyboardInterrupt:
        sys.exit(130)
    if server.ended_by == signal.SIGINT:
        sys.exit(130)


def _choices(cfg: DictConfig, keys: ServeKeys) -> dict[str, Any]:
    """What clients may choose: the policy given first."""
    from streamllm.live.service import Choice

    given = str(HydraConfig.get().runtime.choices["policy"])
    found = {}
    for name in dict.fromkeys([given, *keys.choices]):
        ranges = keys.choices.get(name) or {}
        composed = cfg if name == given else recomposed("serve", [f"policy={name}"])
        node: Any = OmegaConf.masked_copy(composed, ["policy", *(key for key in ranges if key in composed)])
        for number in ranges:
            if number not in node.policy:
                known = ", ".join(str(key) for key in node.policy if key != "_target_") or "none"
                raise ValueError(f"choices.{name}.{number} is no number of that policy; it has {known}")
        make = partial(_made, node, keys.min_lag, keys.max_lag)
        bounds = {number: tuple(bounds) for number, bounds in ranges.items()}
        found[name] = Choice(make, bounds, {number: node.policy[number] for number in ranges})
    return found


def _made(node: Any, min_lag: int | None, max_lag: int | None, **numbers: Any) -> Policy:
    """A policy with these numbers, each given where a person gives it: ``k`` for ``policy.k``, which repeats it."""
    node = copy.deepcopy(node)
    for name, value in numbers.items():
        where = node if name in node else node.policy
        where[name] = value
    return bounded(made(node.policy, "policy"), min_lag, max_lag)


def _keeping(root: Path, values: Mapping[str, Any], model: StreamingModel) -> Any:
    from streamllm.live.traces import keeping
    from streamllm.runs.environment import environment

    config = {key: value for key, value in values.items() if key not in ("token", "log")}
    return keeping(root, config, environment(), model.prompt.source_unit, model.prompt.target_unit)


def command() -> None:
    launch(main, "serve")


if __name__ == "__main__":
    as_module("serve")
