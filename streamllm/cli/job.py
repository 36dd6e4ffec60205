"""One point of a sweep as Hydra runs it, but for the four deep copies that `hydra.core.utils.run_job` makes of its
configuration. Invariant: the task, callbacks and resolvers see what they would see there; a point whose configuration
asks for more (`is_plain`) is left to Hydra."""

import os
import pickle
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobRuntime, JobStatus, configure_log, run_job
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict, read_write


def run_point(
    task_function: TaskFunction, config: DictConfig, hydra_context: HydraContext, configure_logging: bool
) -> JobReturn:
    """Run a task with ``config``, which nobody else may hold: Hydra's part of it is read where it is."""
    if not is_plain(config):
        return run_job(task_function, config, "hydra.sweep.dir", "hydra.sweep.subdir", hydra_context, configure_logging)
    hydra, callbacks, done = HydraConfig.instance(), hydra_context.callbacks, JobReturn()
    before, hydra.cfg = hydra.cfg, config  # type: ignore[assignment]  # as in Hydra, which has another type there
    try:
        OmegaConf.set_readonly(config.hydra, True)
        folder = Path(str(config.hydra.sweep.dir), str(config.hydra.sweep.subdir))
        with read_write(config.hydra.runtime), open_dict(config.hydra.runtime):
            config.hydra.runtime.output_dir = os.path.abspath(folder)
        done.cfg, done.hydra_cfg = _without_hydra(config), config
        done.overrides = list(config.hydra.overrides.task)
        folder.mkdir(parents=True, exist_ok=True)
        done.working_dir = os.getcwd()
        if configure_logging:
            configure_log(config.hydra.job_logging, config.hydra.verbose)
        callbacks.on_job_start(config=config, task_function=task_function)
        try:
            done.return_value, done.status = task_function(done.cfg), JobStatus.COMPLETED
        except Exception as error:  # it goes to whoever asks for the value
            done.return_value, done.status = error, JobStatus.FAILED
        done.task_name = JobRuntime.instance().get("name")
        callbacks.on_job_end(config=config, job_return=done)
        return done
    finally:
        hydra.cfg = before


def is_plain(config: DictConfig) -> bool:
    """Whether Hydra would write no notes of a point, and keep its folder and environment."""
    job = config.hydra.job
    return config.hydra.output_subdir is None and not job.chdir and not job.env_set


def _without_hydra(config: DictConfig) -> DictConfig:
    task: DictConfig = pickle.loads(pickle.dumps(config))  # in half the time of a deep copy
    with read_write(task), open_dict(task):
        del task["hydra"]
    return task
