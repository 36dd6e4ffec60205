"""What a model or adapter folder says besides what mlx-lm reads: ``streamllm.json``; and an adapter's configuration.

Invariant: a value from a file passes the check that it passes on the command line, and its error names file and key."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from streamllm import check
from streamllm.checked import fit, read_json, shown
from streamllm.engine.paradigms.memory import TargetStart, check_target_start
from streamllm.prompt import Prompt

SETTINGS = "streamllm.json"  # in a folder trained to stream; what it holds: `Settings`
ADAPTER = "adapter_config.json"
ADAPTERS = ("lora", "dora", "full")  # mlx-lm's fine_tune_type
TRAINED_AS = ("group", "interleaved")  # what our trainings write


@dataclass(frozen=True)
class Settings:
    """The content of `SETTINGS`; what it does not say is None.

    Args:
        languages: source and target of the training.
        latencies: tags for ``{latency}`` in ``prompt.target_header`` that the training had (``data.latencies``).
        base_weights: of an adapter, the digest of the weights that it was trained on.
        write_head: of the head beside the weights: ``trained_on``, a digest of what it is for, and how it was trained;
            with ``latencies`` it knows those tags alone.

    Raises: ValueError: a value is not accepted.
    """

    prompt: Prompt | None = None
    target_start: TargetStart | None = None
    paradigm: str | None = None
    alignment_heads: Sequence[Sequence[int]] | None = None
    documents: bool | None = None
    languages: Sequence[str] | None = None
    latencies: Sequence[str] | None = None
    base_weights: str | None = None
    write_head: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.target_start is not None:
            check_target_start("target_start", self.target_start)
        check.text("paradigm", self.paradigm, null="")
        check.text("base_weights", self.base_weights, null="")
        check.heads("alignment_heads", self.alignment_heads)
        check.flag("documents", self.documents, null="")
        head = self.write_head
        if head is not None and not (isinstance(head, Mapping) and isinstance(head.get("trained_on"), str)):
            raise ValueError(f"write_head is {shown(head)}; it is an object with trained_on, a digest")
        _check_tags("latencies", self.latencies)
        _check_tags("write_head.latencies", None if head is None else head.get("latencies"))
        if self.languages is not None and (
            not isinstance(self.languages, list | tuple)
            or len(self.languages) != 2
            or not all(isinstance(code, str) for code in self.languages)
        ):
            raise ValueError(f"languages is {shown(self.languages)}; they are two codes, source and target")

    def over(self, others: "Settings") -> "Settings":
        """These, and those of ``others`` where these say nothing."""
        return Settings(**{name: _first(getattr(self, name), getattr(others, name)) for name in _names(Settings)})


def read_settings(folder: Path) -> Settings:
    """The `SETTINGS` of a folder; all None where it has none. Keys that this version does not know are left out, but
    for those of the prompt, which is fed.

    Raises: ValueError: a value is not accepted; the message names file and key.
    """
    path = folder / SETTINGS
    try:
        found = settings_of(path)
    except FileNotFoundError:
        return Settings()
    known = {name: found[name] for name in _names(Settings) if name in found}
    try:
        if (prompt := known.get("prompt")) is not None:
            known["prompt"] = _prompt(prompt)
        return Settings(**known)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def settings_of(path: Path) -> dict[str, Any]:
    """Whatever a file of settings holds, to be written again.

    Raises: FileNotFoundError: it is not there. ValueError: it is damaged.
    """
    return read_json(path, dict[str, Any], "mend it, or remove it if the model was not trained to stream", ValueError)


def check_adapter(folder: Path) -> dict[str, Any]:
    """The `ADAPTER` of a folder, once mlx-lm can make layers from it.

    Raises: FileNotFoundError: it is not there. ValueError: a value is not accepted; the message names file and key.
    """
    path = folder / ADAPTER
    found = read_json(path, dict[str, Any], "fetch it again, or give the folder that the training wrote", ValueError)
    try:
        kind = found.get("fine_tune_type", "lora")
        if kind not in ADAPTERS:
            raise ValueError(f"fine_tune_type is {shown(kind)}; accepted are {', '.join(ADAPTERS)}")
        if kind != "full":
            _check_layers(found)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return found


def _check_tags(name: str, tags: object) -> None:
    if tags is not None and not (
        isinstance(tags, list | tuple) and tags and all(isinstance(tag, str) and tag for tag in tags)
    ):
        raise ValueError(f'{name} is {shown(tags)}; it is a list of tags in quotes, such as ["low", "high"]')


def check_lora(name: str, rank: object, scale: object, dropout: object) -> None:
    """Raises: ValueError: no adapter has such values; ``name`` begins their names."""
    check.whole_number(f"{name}.rank", rank, of="")
    check.number(f"{name}.scale", scale, above=0)
    check.number(f"{name}.dropout", dropout, least=0, below=1)


def _check_layers(found: dict[str, Any]) -> None:
    for key in ("num_layers", "lora_parameters"):
        if key not in found:
            raise ValueError(f"it has no {key}, which mlx-lm writes")
    check.whole_number("num_layers", found["num_layers"], least=-1, of="blocks", hint="-1 for all")
    parameters = found["lora_parameters"]
    if not isinstance(parameters, dict) or (missing := {"rank", "scale", "dropout"} - parameters.keys()):
        what = shown(parameters) if not isinstance(parameters, dict) else f"without {', '.join(sorted(missing))}"
        raise ValueError(f"lora_parameters is {what}; it should be an object with rank, scale and dropout")
    check_lora("lora_parameters", parameters["rank"], parameters["scale"], parameters["dropout"])
    if (keys := parameters.get("keys")) is not None:
        try:
            fit(keys, list[str])
        except ValueError as error:
            raise ValueError(f"lora_parameters.keys: {error}") from error


def _prompt(values: Any) -> Prompt:
    if not isinstance(values, dict):
        raise ValueError(f"prompt is {shown(values)}; it should be an object with {', '.join(_names(Prompt))}")
    if unknown := sorted(set(values) - set(_names(Prompt))):
        raise ValueError(f"prompt has a key {shown(unknown[0])}; accepted are {', '.join(_names(Prompt))}")
    return Prompt(**values)


def _names(record: type) -> list[str]:
    return [field.name for field in fields(record)]


def _first(one: Any, other: Any) -> Any:
    return other if one is None else one
