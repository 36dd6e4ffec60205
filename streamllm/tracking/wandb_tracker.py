"""Weights & Biases as a tracker; the library is imported when a run starts."""

import contextlib
import io
import os
import shlex
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from streamllm.runs.load import flatten
from streamllm.tracking.tracker import Picture, RunInfo, log

WANDB_MODES = ("online", "offline", "disabled")
INIT_SECONDS = 30  # for W&B to answer when an online run begins
FINISH_SECONDS = 120  # for it to take, or to write, what is left when a run ends
GRACE_SECONDS = 30  # beyond that, for its process to say that it gives up, which it sometimes never does
RUNNING = "running/"
"""How keys of scores of the sentences so far begin: of those, W&B gets some, closer at the beginning."""
EVERY = 50  # so much of the steps so far lies between two of them
UNPROMISED = {"x_transaction_log_flush_interval": 1.0}  # seconds that a killed run may lose; W&B's own are 15
"""Settings of W&B that may be gone in its next release, and that we can do without."""


class WandbTracker:
    """Weights & Biases; files are in ``wandb/`` beside the run folders (``wandb sync`` sends offline runs).

    Args:
        mode: "offline", "online" (where W&B cannot be reached, the run is recorded offline) or "disabled".
        project: the project of W&B in which the run is filed.
        entity: the user or team of W&B that has the project; None is the account's own.
        group: runs that W&B shows together; None groups the points of a sweep.
        tags: words by which W&B finds the run.
        pictures: how many rows of a table have a picture, from the first on.
        again: report a run that had finished before, too: it may not have been tracked.

    Raises:
        ValueError: an unknown mode, or fewer than 0 pictures.
    """

    def __init__(
        self,
        mode: str = "offline",
        project: str = "streamllm",
        entity: str | None = None,
        group: str | None = None,
        tags: Sequence[str | int] = (),
        pictures: int = 5,
        again: bool = False,
    ):
        if mode not in WANDB_MODES:
            raise ValueError(
                f"tracker.mode is {mode!r}; accepted are {', '.join(WANDB_MODES)} (or tracker=none for no tracker)"
            )
        if type(pictures) is not int or pictures < 0:
            raise ValueError(f"tracker.pictures is {pictures!r}; it is the number of sentences to draw, at least 0")
        self.mode, self.project, self.entity, self.group = mode, project, entity, group
        self.tags = [str(tag) for tag in tags]  # ${name} may be a number
        self.pictures, self.again = pictures, again
        self._run: Any = None
        self._next = 0
        self._held: tuple[Mapping[str, Any], int] | None = None

    def start(self, run: RunInfo) -> None:
        try:
            self._run = self._begin(run, self.mode)
        except Exception as error:  # no network, no key, a wrong one
            if self.mode != "online":
                raise
            import wandb

            wandb.teardown()  # else the id of the run is still in use
            self._run = self._begin(run, "offline")
            log.warning(
                "Weights & Biases cannot be reached (%s: %s), so this run is recorded offline; send it later: "
                "wandb sync %s",
                *(type(error).__name__, error, Path(self._run.dir).parent),
            )
        else:
            if self.mode == "online":
                log.info("Weights & Biases: %s", self._run.url)
        self._restore(run.config)

    def _begin(self, run: RunInfo, mode: str) -> Any:
        import wandb

        return wandb.init(
            mode=mode,  # type: ignore[arg-type]
            project=self.project,
            entity=self.entity,
            group=self.group,
            tags=self.tags,
            job_type=run.job_type,
            id=run.id,
            name=run.name,
            dir=str(run.folder.parent),
            config=dict(run.config),
            resume="allow",
            # In a sweep, many runs follow each other in one process, or are made together.
            reinit="create_new",
            settings=wandb.Settings(
                console="off",
                silent=True,
                init_timeout=INIT_SECONDS,
                login_timeout=INIT_SECONDS,
                finish_timeout=FINISH_SECONDS,
                finish_timeout_raises=True,
                **{name: value for name, value in UNPROMISED.items() if name in wandb.Settings.model_fields},
            ),
        )

    def _restore(self, config: Mapping[str, Any]) -> None:
        """A W&B sweep over ``policy`` puts the word "waitk" where the configuration has the keys of a policy, and locks
        it: they go beside it, as ``policy.k``."""
        shown = self._run.config
        hidden = {key: config[key] for key in config if isinstance(config[key], Mapping) and shown[key] != config[key]}
        shown.update(flatten(hidden))

    def log(self, values: Mapping[str, Any], step: int) -> None:
        """As `Tracker.log`. A call of W&B takes a millisecond, so of the running scores each of the first hundred is
        sent, then one in every step / `EVERY` steps, and the last."""
        if all(key.startswith(RUNNING) for key in values):
            if step < self._next:
                self._held = values, step
                return
            self._next = step + max(1, step // EVERY)
        self._held = None
        self._run.log(dict(values), step=step)

    def _send_held(self) -> None:
        if self._held is not None:
            (values, step), self._held = self._held, None
            self._run.log(dict(values), step=step)

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        import wandb

        self._send_held()
        data = [[self._cell(cell, number) for cell in row] for number, row in enumerate(rows)]
        self._run.log({name: wandb.Table(columns=list(columns), data=data)})

    def _cell(self, cell: Any, number: int) -> Any:
        if not isinstance(cell, Picture):
            return cell
        if number >= self.pictures:
            return None
        import wandb
        from PIL import Image

        return wandb.Image(Image.open(io.BytesIO(cell.draw())))

    def summary(self, values: Mapping[str, Any]) -> None:
        self._send_held()
        self._run.summary.update(dict(values))

    def finish(self, exit_code: int = 0) -> None:
        """Raises: TimeoutError: W&B did not take the rest in time; its files are in ``wandb/``."""
        if self._run is None:
            return
        with contextlib.suppress(Exception):  # one figure of many
            self._send_held()
        run, self._run, self._next = self._run, None, 0
        errors: list[Exception] = []

        def end() -> None:
            try:
                run.finish(exit_code=exit_code)
            except Exception as error:
                errors.append(error)

        thread = threading.Thread(target=end, daemon=True)
        thread.start()
        thread.join(FINISH_SECONDS + GRACE_SECONDS)
        if thread.is_alive():  # wandb waits for its process without end, and would do so again on exit
            subprocess.run(["pkill", "-KILL", "-P", str(os.getpid()), "wandb-core"], check=False)
            thread.join(GRACE_SECONDS)
            import wandb

            with contextlib.suppress(Exception):  # nobody answers any more
                wandb.teardown()  # else the next run would talk to the process that was killed
            raise TimeoutError(f"no end after {FINISH_SECONDS + GRACE_SECONDS} s: wandb sync {Path(run.dir).parent}")
        if errors:
            raise errors[0]
        if self.mode == "offline" and not exit_code:
            log.info("Weights & Biases: recorded offline; to send it: wandb sync %s", _for_a_shell(run.dir))


def _for_a_shell(files: str) -> str:
    """The folder of a run of W&B, as it is typed in this folder."""
    folder = Path(files).parent
    return shlex.quote(str(folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder))
