"""A point of a sweep sees what Hydra's own `run_job` would show it."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra import initialize_config_dir
from hydra._internal.callbacks import Callbacks
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, run_job, setup_globals
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from streamllm.cli.conf import CONF
from streamllm.cli.job import is_plain, run_point


@pytest.fixture(scope="module")
def loader() -> Iterator[ConfigLoader]:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield GlobalHydra.instance().config_loader()
    setup_globals()


class Witness(Callbacks):
    """Notes what callbacks are shown."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Any] = []

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        self.seen.append(("start", OmegaConf.to_container(config), config.name, os.getcwd()))

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        hydra = job_return.hydra_cfg
        assert hydra is not None
        told = (job_return.overrides, job_return.working_dir, job_return.task_name, job_return.status)
        self.seen.append(("end", OmegaConf.to_container(config), *told, job_return.cfg, str(job_return._return_value)))
        self.seen.append(OmegaConf.to_container(hydra.hydra))


def point(loader: ConfigLoader, *words: str) -> DictConfig:
    config = loader.load_configuration("run", [*words, "tracker=none"], RunMode.MULTIRUN)
    with open_dict(config):
        config.hydra.job.id = config.hydra.job.num = 7
    return config


def seen(loader: ConfigLoader, run: Callable[..., JobReturn], config: DictConfig) -> list[Any]:
    """What the task and the callbacks see of a point, and what it leaves."""
    witness, before = Witness(), HydraConfig.instance().cfg

    def task(cfg: DictConfig) -> str:
        resolved = OmegaConf.to_container(cfg, resolve=True)
        hydra = HydraConfig.get()
        witness.seen.append((resolved, OmegaConf.is_struct(cfg), hydra.job.num, hydra.mode, hydra.runtime.output_dir))
        frozen = OmegaConf.is_readonly(hydra)  # type: ignore[arg-type]  # it is a DictConfig, and said to be its schema
        witness.seen.append((OmegaConf.is_readonly(cfg), frozen, hydra.sweep.dir))
        if cfg.seed == 1:
            raise ValueError("seed 1")
        cfg.seed = 5  # its own copy
        return "done"

    run(task, config, HydraContext(config_loader=loader, callbacks=witness))
    assert HydraConfig.instance().cfg is before
    assert list(Path("outputs").iterdir()) == [Path("outputs/.sweep")]
    return witness.seen


@pytest.mark.parametrize("words", [["seed=0"], ["seed=1"], ["k=5", "hydra.verbose=true"]], ids=["ends", "fails", "log"])
def test_a_point_sees_what_hydra_shows_it(
    words: list[str], loader: ConfigLoader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def of_hydra(task: Any, config: DictConfig, context: HydraContext) -> JobReturn:
        return run_job(task, config, "hydra.sweep.dir", "hydra.sweep.subdir", context, configure_logging=False)

    def ours(task: Any, config: DictConfig, context: HydraContext) -> JobReturn:
        return run_point(task, config, context, configure_logging=False)

    assert seen(loader, ours, point(loader, *words)) == seen(loader, of_hydra, point(loader, *words))


def test_a_point_that_wants_notes_or_an_environment_is_left_to_hydra(
    loader: ConfigLoader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert is_plain(point(loader))
    for word in ("hydra.output_subdir=.hydra", "hydra.job.chdir=true", "+hydra.job.env_set.A=b"):
        assert not is_plain(point(loader, word)), word
    context = HydraContext(config_loader=loader, callbacks=Callbacks())
    config = point(loader, "hydra.output_subdir=notes", "+hydra.job.env_set.OF_A_POINT=1")
    told = run_point(lambda cfg: os.environ.get("OF_A_POINT"), config, context, False)
    assert told.return_value == "1"
    assert Path("outputs/.sweep/notes/overrides.yaml").exists()
