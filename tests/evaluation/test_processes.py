"""One run on several processes: the bytes of one process, one error, and a folder that goes on."""

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import active_children
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from streamllm.data.sample import Sample
from streamllm.engine.limits import Limits
from streamllm.evaluation import processes
from streamllm.evaluation.processes import in_processes
from streamllm.evaluation.runner import run_experiment
from streamllm.models.loading import ModelConfig
from streamllm.policies import WaitK
from streamllm.records import Decide, Example, Policy, State
from streamllm.runs.folder import PREDICTIONS, RunFolder

DATA = Sample(limit=6)
MODEL = ModelConfig("bundled:tiny-en-de")


@dataclass
class Ending:
    """Wait-3, which in one sentence raises, or ends its process."""

    raises: bool

    def start(self, example: Example) -> Decide:
        decide = WaitK(3).start(example)

        def ending(state: State) -> Any:
            if example.id == "sample-004" and state.written == 1:
                if self.raises:
                    raise ValueError("no")
                os._exit(3)
            return decide(state)

        return ending


def run(root: Path, policy: Policy, processes: int = 1) -> Path:
    """The run's predictions."""
    config = {"policy": "wait-3"}
    run_experiment(
        config=config,
        name="run",
        model=MODEL,
        policy=policy,
        dataset=DATA,
        root=root,
        batch_size=4,
        translator=in_processes(processes, MODEL) if processes > 1 else None,
    )
    return RunFolder.of(config, "run", root).path / PREDICTIONS


@pytest.mark.long
def test_two_processes_leave_the_bytes_of_one(tmp_path: Path) -> None:
    one, two = (run(tmp_path / str(count), WaitK(3), count).read_bytes() for count in (1, 2))
    assert one == two


@pytest.mark.long
@pytest.mark.parametrize(("raises", "error"), [(True, "no"), (False, r"was ended \(exit code 3\)")])
def test_what_ends_one_process_ends_all_with_one_error_and_the_run_goes_on(
    tmp_path: Path, raises: bool, error: str
) -> None:
    with pytest.raises((ValueError, ChildProcessError), match=error):
        run(tmp_path / "ended", Ending(raises), 2)
    whole = run(tmp_path / "ended", WaitK(3))
    assert whole.read_bytes() == run(tmp_path / "straight", WaitK(3)).read_bytes()


@pytest.mark.long
def test_an_interrupt_ends_all_processes() -> None:
    loaded = MODEL.load(None, "word", "word")
    traces = in_processes(2, MODEL)(loaded, DATA.load(), WaitK(3), Limits(), 1, 0)
    next(traces)
    assert len(active_children()) == 2
    with pytest.raises(KeyboardInterrupt):
        traces.throw(KeyboardInterrupt())  # type: ignore[attr-defined]
    assert active_children() == []


def test_what_cannot_be_sent_to_another_process_is_refused_before_any_begins(tmp_path: Path) -> None:
    class Local(WaitK):
        pass

    make: Callable[[int], Policy] = Local
    with pytest.raises(ValueError, match=r"cannot be sent .*give processes=1"):
        run(tmp_path, make(3), 2)


@pytest.mark.long
def test_an_interrupt_gives_what_processes_have_sent_by_then(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    loaded = MODEL.load(None, "word", "word")
    traces = in_processes(2, MODEL)(loaded, DATA.load(), WaitK(3), Limits(), 1, 0)
    found = [next(traces)]

    def interrupted(connections: object) -> list[Connection]:
        for process in active_children():
            process.join()  # all is in the pipes
        raise KeyboardInterrupt

    monkeypatch.setattr(processes, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        found.extend(traces)
    assert {trace.id for trace in found} == {example.id for example in DATA.load()}
    assert caplog.messages == ["what 2 processes had under way begins anew"]
