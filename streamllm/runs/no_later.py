"""Whether runs are better than the best of others that are not later, which is what a plot of both axes asks.

The baseline of each run is chosen by its score on the very sentences that are compared, which is in its favour.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from streamllm.check import whole_number
from streamllm.metrics.scores import scores
from streamllm.runs.compare import paired_test_of, scored_run
from streamllm.runs.randomisation import TRIALS
from streamllm.runs.scored import BLEU_NAME, RunPath
from streamllm.runs.sums import SEED

if TYPE_CHECKING:
    import pandas

NAN = float("nan")


def no_later_table(
    baselines: Mapping[str, RunPath],
    systems: Mapping[str, RunPath],
    latency: str = "laal",
    quality: str = BLEU_NAME,
    samples: int = 1000,
    seed: int = SEED,
    trials: int = TRIALS,
) -> "pandas.DataFrame":
    """Each system against the baseline with the best quality among those whose latency is no larger.

    Args:
        baselines, systems: finished runs over the same sentences, by name.
        latency, quality: of `streamllm.runs.scored.Scored`: "laal", "al" …; "bleu", "chrf".
        samples, seed, trials: as for `paired_test`.

    Returns: a row for each system: ``system``, ``latency``, ``quality``; ``baseline`` (the name of the best one that is
        no later; of equally good ones the earliest), ``baseline_latency``, ``baseline_quality``; ``difference`` of the
        qualities (system - baseline) with ``difference_low`` and ``difference_high`` by paired bootstrap, and
        ``p_value`` by paired approximate randomisation, two-sided. Where every baseline is later, ``baseline`` is ""
        and what follows is nan.
    Raises: ValueError: there is no baseline or no system; and as `paired_test`.
    """
    import pandas

    for what, runs in (("baselines", baselines), ("systems", systems)):
        if not runs:
            raise ValueError(f"{what} has 0 runs; give one or more, by name")
    whole_number("samples", samples, of="samples")
    known = scores(documents=True).get(quality)
    sign = -1 if known is not None and known.higher_is_better is False else 1
    scored = {name: scored_run(folder, [quality, latency]) for name, folder in baselines.items()}
    places = {name: (one.value(latency), one.value(quality)) for name, one in scored.items()}
    rows: list[dict[str, Any]] = []
    for name, folder in systems.items():
        system = scored_run(folder, [quality, latency])
        late, good = system.value(latency), system.value(quality)
        no_later = [one for one, (theirs, _) in places.items() if theirs <= late]
        row: dict[str, Any] = {"system": name, "latency": late, "quality": good, "baseline": ""}
        row |= dict.fromkeys(
            ("baseline_latency", "baseline_quality", "difference", "difference_low", "difference_high", "p_value"), NAN
        )
        if no_later:
            best = max(no_later, key=lambda one: (sign * places[one][1], -places[one][0]))
            found = paired_test_of(scored[best], system, samples, seed, trials, asked=True)[quality]
            row |= {"baseline": best, "baseline_latency": places[best][0], "baseline_quality": places[best][1]}
            row |= {"difference": found.difference, "difference_low": found.low, "difference_high": found.high}
            row["p_value"] = found.p_value
        rows.append(row)
    return pandas.DataFrame(rows)
