"""Points of a sweep are copies of each other where they differ in plain values alone."""

import pickle
from collections.abc import Iterator
from typing import Any

import pytest
from hydra import initialize_config_dir
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from streamllm.cli.conf import CONF
from streamllm.cli.points import Points


@pytest.fixture(scope="module")
def hydra() -> Iterator[ConfigLoader]:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield GlobalHydra.instance().config_loader()


@pytest.fixture(scope="module")
def master(hydra: ConfigLoader) -> DictConfig:
    return hydra.load_configuration("run", ["dataset.limit=5,6"], RunMode.MULTIRUN)


class Counted(Points):
    """Counts how often Hydra composes."""

    def __init__(self, loader: ConfigLoader):
        super().__init__(loader)
        self.composed = 0
        original = loader.load_sweep_config

        class Loader:
            def load_sweep_config(inside, *words: Any) -> DictConfig:
                self.composed += 1
                return original(*words)

        self._loader = Loader()  # type: ignore[assignment]


def test_points_that_differ_in_values_are_composed_once(hydra: ConfigLoader, master: DictConfig) -> None:
    points = Counted(hydra)
    batch = [[f"k={k}", f"seed={seed}", "tracker=none", "+study=a"] for k in (1, 2, 3) for seed in (0, 1)]
    points.check(master, batch)
    found = [points.load_sweep_config(master, words) for words in batch]
    assert points.composed == 1
    assert [(one.k, one.policy.k, one.seed) for one in found] == [(k, k, s) for k in (1, 2, 3) for s in (0, 1)]
    assert found[0] is not found[1]


@pytest.mark.parametrize(
    "batch",
    [
        [["k=1", "dataset.limit=5"], ["k=3", "dataset.limit=null"]],
        [["k=2", "name='a b'", "model.path=x"], ["k=1", "name=${dataset.name}", "model.path=1.5"]],
        [["policy=full", "seed=1"], ["policy=waitk", "seed=1"], ["policy=waitk", "seed=2"]],
        [["+dataset.columns={a:1}", "k=1"], ["+dataset.columns={a:2}", "k=2"]],
        [["limits.early_stop=stop", "~arrival"], ["limits.early_stop=read", "~arrival"]],
        [["metrics={}", "+metrics.a=1"], ["metrics={}", "+metrics.a=2"]],
    ],
    ids=["values", "texts", "groups", "mappings", "removed", "inside each other"],
)
def test_a_point_is_what_hydra_composes(hydra: ConfigLoader, master: DictConfig, batch: list[list[str]]) -> None:
    points = Points(hydra)
    points.check(master, batch)
    for words in [*batch, *batch]:
        found, whole = points.load_sweep_config(master, words), hydra.load_sweep_config(master, words)
        assert OmegaConf.to_container(found) == OmegaConf.to_container(whole)
        assert OmegaConf.is_struct(found) == OmegaConf.is_struct(whole)


def test_a_value_that_no_point_may_have_is_refused_before_the_first(hydra: ConfigLoader, master: DictConfig) -> None:
    for batch in ([["k=1"], ["policy=full", "k=2"]], [["k=1"], ["nothing=2"]], [["k=1"], ["policy=nix"]]):
        with pytest.raises(HydraException):
            Points(hydra).check(master, batch)


def test_a_point_may_change_without_changing_the_next(hydra: ConfigLoader, master: DictConfig) -> None:
    points = Points(hydra)
    for number in range(3):
        config = points.load_sweep_config(master, [f"seed={number}"])
        assert config.batch_size is None
        config.batch_size = number
        config.hydra.job.num = number


def test_launchers_can_send_the_loader_to_other_processes(hydra: ConfigLoader, master: DictConfig) -> None:
    points = Points(hydra)
    points.load_sweep_config(master, ["k=1"])
    assert pickle.loads(pickle.dumps(points)).load_sweep_config(master, ["k=2"]).k == 2
