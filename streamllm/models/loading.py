"""Loads any mlx-lm decoder as a streaming model, from the bundle, a folder or the hub. mlx-lm's model files are used as
they are. Invariant: what cannot be loaded or cannot stream is a `ModelError` that says what to do."""

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import mlx.core as mx
from mlx.utils import tree_flatten, tree_unflatten

from streamllm import check, contents
from streamllm.cache.retention import Retention
from streamllm.checked import parse
from streamllm.engine.paradigms.group import Group
from streamllm.engine.paradigms.memory import Paradigm, TargetStart, check_target_start
from streamllm.engine.positions import Positions
from streamllm.engine.sampling import check_sampling
from streamllm.models import tokenizers, write_heads
from streamllm.models.families import args_of, check_supported
from streamllm.models.languages import languages_of
from streamllm.models.model import StreamingModel
from streamllm.models.model_configs import as_mlx_lm_reads
from streamllm.models.precision import fitted, refuse_too_large
from streamllm.models.rotary_scaling import mend
from streamllm.models.settings import SETTINGS, TRAINED_AS, Settings, check_adapter, read_settings
from streamllm.prompt import Prompt, PromptTokens
from streamllm.units import Unit

log = logging.getLogger(__name__)
Checked = TypeVar("Checked")

ASSETS = Path(__file__).parent / "assets"
BUNDLED = "bundled:"
GENERATION = "generation_config.json"
TOKENIZER_FILES = ("tokenizer.json", "*.model", "*.tiktoken", "vocab.*", "tekken.json")
READ = (
    *("*.safetensors", "config.json", "generation_config.json", "adapter_config.json", SETTINGS),
    *(*TOKENIZER_FILES, "merges.txt", "tokenizer_config.json", "special_tokens_map.json"),
    *("added_tokens.json", "chat_template*", "additional_chat_templates/*"),
)
"""The files of a model or adapter folder that decide what comes out."""

ADAPTED = frozenset({"lora_a", "lora_b", "m"})  # what LoRA and DoRA add to a module


class ModelError(ValueError):
    """A model that cannot be loaded or cannot stream; the message says why and what to do."""


@dataclass(frozen=True)
class ModelConfig:
    """Which model to load, and how it writes.

    Args:
        path: ``bundled:NAME``, a local folder, or a hub id (``organisation/name``).
        adapter_path: folder of an adapter in mlx-lm's format. A `SETTINGS` file there counts before the model's.
        target_start: position of the first target token (φ), or "after_source": right behind the source tokens that
            have been read at the first write, as in one sequence. None takes what the model was trained with, and
            "after_source" for a model that was not trained to stream.
        dtype: "float32", "bfloat16" or "float16"; None keeps the dtype on a GPU and takes float32 on a CPU,
            where everything else is 10 to 20 times slower.
        quantized: whether quantised weights stay so. None unpacks them on a CPU, for the same reason.
        temperature: of sampling; 0 is greedy.
        top_p: sampling is among the likeliest tokens whose probabilities sum to this; 1 is all tokens.
        max_source: the most source tokens that are held (docs/long_streams.md); None is no limit.
        max_target: the most target tokens that are held; None is no limit.
        sinks: the first tokens of each stream, which are never forgotten; a longer header stays as a whole.
        kv_bits: 8 or 4: keys and values are quantised; None keeps them as they are.
        kv_group_size: numbers that share a scale then: 32, 64 or 128.
        head_path: folder of a write head for ``policy=learned``; None takes that beside the adapter or the weights.
    """

    path: str
    adapter_path: str | None = None
    target_start: TargetStart | None = None
    dtype: str | None = None
    quantized: bool | None = None
    temperature: float = 0.0
    top_p: float = 1.0
    max_source: int | None = None
    max_target: int | None = None
    sinks: int = 4
    kv_bits: int | None = None
    kv_group_size: int = 64
    head_path: str | None = None

    def __post_init__(self) -> None:
        try:
            check.text("path", self.path)
            for name in ("adapter_path", "head_path"):
                value = getattr(self, name)
                if value is not None and not isinstance(value, str | os.PathLike):
                    raise ValueError(f"{name} is {value!r}; accepted are a folder and null")
            if self.dtype not in (None, "float32", "bfloat16", "float16"):
                raise ValueError(f"dtype is {self.dtype!r}; accepted are float32, bfloat16, float16 and null")
            check.flag("quantized", self.quantized, null="")
            check_sampling(self.temperature, self.top_p)
            if self.target_start is not None:
                check_target_start("target_start", self.target_start)
            self.retention  # noqa: B018  it checks
        except ValueError as error:
            raise ModelError(f"model.{error}") from error

    @property
    def retention(self) -> Retention:
        return Retention(self.max_source, self.max_target, self.sinks, self.kv_bits, self.kv_group_size)

    def contents(self) -> contents.Contents:
        """The digests of the files that `load` reads, as parts "model" and "adapter". A hub id counts by what was
        downloaded last; what is not there is left out."""
        found: contents.Contents = {}
        adapter, head = (Path(path) if path else None for path in (self.adapter_path, self.head_path))
        for part, folder in (("model", local_folder(self.path)), ("adapter", adapter), ("head", head)):
            if folder and (files := contents.present(partial(contents.of_folder, folder, READ))):
                found[part] = files
        return found

    def load(
        self,
        prompt: Prompt | None = None,
        source_unit: Unit = "word",
        target_unit: Unit = "word",
        paradigm: Paradigm | None = None,
        latencies: Sequence[str] = (),
    ) -> "StreamingModel":
        """Load the model.

        Args:
            prompt: None takes the model folder's own prompt, else its chat template.
            paradigm: how the streams lie in memory; None is `Group`. A model that was trained for another one is
                warned about.
            latencies: tags that it is going to learn; none takes those that it was trained with, if they are known.

        Raises:
            ModelError: it is not there, is broken, is of a family that cannot stream, or has no prompt; or the prompt
                asks for a latency that it was not trained with.
        """
        # What only loading needs is imported when a model is loaded: a finished run does not wait for it.
        from streamllm.models.config_values import check_values

        folder = find_model(self.path)
        config = _read_json(folder / "config.json")
        if config.get("model_type") is None:
            raise ModelError(f"{folder / 'config.json'} has no model_type: mlx-lm cannot load it")
        _checked(folder / "config.json", lambda: check_values(config))
        try:
            check_supported(config["model_type"])
        except ValueError as error:
            raise ModelError(str(error)) from error
        try:
            settings = read_settings(folder)
            if self.adapter_path is not None:
                settings = read_settings(Path(self.adapter_path)).over(settings)
        except ValueError as error:
            raise ModelError(str(error)) from error
        paradigm = paradigm or Group()
        self._check_paradigm(settings, paradigm)
        prompt = prompt or settings.prompt or Prompt(chat=True)
        model, tokenizer = _load(folder, self.adapter_path)
        try:
            tokenizers.as_the_folder_says(folder, tokenizer)
            tags = latencies or settings.latencies or ()
            tokens = PromptTokens(prompt, tokenizer, source_unit, target_unit, tags)
            tokenizers.check(tokens, model)
        except ValueError as error:
            raise ModelError(str(error)) from error
        except (TypeError, AttributeError, LookupError, ArithmeticError, RuntimeError) as error:
            raise ModelError(tokenizers.fault(folder, _what(error))) from error
        starts = [start for start in (self.target_start, settings.target_start) if start is not None]
        self._check_heads(settings, model)
        try:
            adapter, chosen = (Path(given) if given else None for given in (self.adapter_path, self.head_path))
            write_head = write_heads.head_of(folder, adapter, chosen)
        except ValueError as error:
            raise ModelError(str(error)) from error
        model = _unpacked(model, self.quantized)
        try:
            refuse_too_large(dict(tree_flatten(model.parameters())), self.path, self.dtype)
            model = _in_dtype(model, self.dtype)
            return StreamingModel(
                model,
                tokens,
                tokenizer,
                target_start=starts[0] if starts else "after_source",
                temperature=self.temperature,
                top_p=self.top_p,
                paradigm=paradigm,
                alignment_heads=settings.alignment_heads,
                documents=settings.documents or False,
                languages=languages_of(folder, settings.languages),
                retention=self.retention,
                positions=Positions.of(model, config),
                write_head=write_head,
            )
        except ValueError as error:
            raise ModelError(str(error)) from error

    def _check_paradigm(self, settings: Settings, paradigm: Paradigm) -> None:
        """Raises: ModelError: nobody knows the paradigm that the model was trained for. Another than this is said."""
        trained = settings.paradigm
        if trained is None or trained == paradigm.trained_as:
            return
        if trained not in TRAINED_AS:
            raise ModelError(
                f"{SETTINGS} of {self.path}: paradigm is {trained!r}; accepted are {' and '.join(TRAINED_AS)}, or give "
                "the paradigm that it was trained for"
            )
        log.warning("%s was trained for paradigm=%s; this is %s", self.path, trained, paradigm)

    def _check_heads(self, settings: Settings, model: Any) -> None:
        """Raises: ModelError: the model has no such layer."""
        layers = len(model.layers)
        for head in settings.alignment_heads or ():
            if head[0] >= layers:
                raise ModelError(
                    f"{SETTINGS} of {self.path}: alignment_heads has {list(head)}, and the model has {layers} layers: "
                    "`streamllm calibrate` finds them anew"
                )


def base_weights(folder: Path) -> str:
    """A digest of the weights in a model folder, for an adapter to know its base by, however the files are called."""
    return contents.of_text(*sorted(contents.of_folder(folder, ("model*.safetensors",)).values()))


def local_folder(path: str) -> Path | None:
    """The folder of a model that is on this machine, as `find_model` would find it; None where it is not."""
    if path.startswith(BUNDLED):
        return ASSETS / path.removeprefix(BUNDLED)
    folder = Path(path).expanduser()
    if folder.is_dir():
        return folder
    if path.count("/") != 1:
        return None
    from huggingface_hub import constants

    stored = Path(constants.HF_HUB_CACHE) / f"models--{path.replace('/', '--')}"
    try:
        return stored / "snapshots" / (stored / "refs" / "main").read_text().strip()
    except OSError:
        return None


def find_model(path: str) -> Path:
    """The folder of a model, downloaded if ``path`` is a hub id."""
    if path.startswith(BUNDLED):
        folder = ASSETS / path.removeprefix(BUNDLED)
        names = sorted(child.parent.name for child in ASSETS.glob("*/config.json"))
        if folder.name not in names:
            raise ModelError(f"no model {path!r} is bundled; there is: {', '.join(BUNDLED + name for name in names)}")
        return folder
    folder = Path(path).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").exists():
            raise ModelError(f"{path!r} has no config.json: model.path is a folder that mlx_lm.load opens")
        return folder
    is_hub_id = path.count("/") == 1 and not path.startswith((".", "/", "~")) and not path.endswith("/")
    if not is_hub_id:
        raise ModelError(
            f"model.path is {path!r}, and there is no such folder: give a model folder, a hub id "
            f"(organisation/name) or {BUNDLED}tiny-en-de"
        )
    return _download(path)


def _download(hub_id: str) -> Path:
    from huggingface_hub import snapshot_download

    wanted = ["*.json", "*.safetensors", "*.model", "*.tiktoken", "*.txt", "*.jinja"]
    try:
        return Path(snapshot_download(hub_id, allow_patterns=wanted))
    except Exception as error:  # the hub client raises errors of several libraries
        raise ModelError(
            f"cannot get {hub_id!r} from the hub ({type(error).__name__}: {_first_line(error)}). If the name is "
            "right, this machine may be offline: give model.path a local folder"
        ) from error


def _load(folder: Path, adapter_path: str | None) -> tuple[Any, Any]:
    """The model, whose weights are not evaluated yet, and mlx-lm's tokenizer."""
    if adapter_path is not None and not (Path(adapter_path) / "adapter_config.json").exists():
        raise ModelError(
            f"model.adapter_path is {adapter_path!r}, which has no adapter_config.json: give a folder that "
            "mlx_lm.lora or train.py wrote"
        )
    if not any(any(folder.glob(pattern)) for pattern in TOKENIZER_FILES):
        raise ModelError(f"{folder} is not a whole model: it has no tokenizer ({', '.join(TOKENIZER_FILES)})")
    _refuse_own_code(folder)
    try:
        if adapter_path is not None:
            check_adapter(Path(adapter_path))
        tokenizer_config = tokenizers.settings(folder)
    except ValueError as error:
        raise ModelError(str(error)) from error
    model, config = _model(folder)
    tokenizer = _tokenizer(folder, tokenizer_config, config.get("eos_token_id"))
    if adapter_path is not None:
        model = _adapted(model, folder, Path(adapter_path))
    return model, tokenizer


def _model(folder: Path) -> tuple[Any, dict[str, Any]]:
    """The model of a folder and its configuration. All is checked before anything large is made: MLX computes nothing
    until it is asked to."""
    from mlx_lm.utils import load_config, load_model

    from streamllm.models.config_values import check_kinds, check_values
    from streamllm.models.weights import arrays_of

    path = folder / "config.json"
    try:
        arrays = arrays_of(folder)
    except ValueError as error:
        raise ModelError(f"cannot load {folder}: {error}") from error
    if (folder / GENERATION).exists():
        generation = _read_json(folder / GENERATION, must=False)
        _checked(folder / GENERATION, lambda: check_values({"eos_token_id": generation.get("eos_token_id")}))
    config = _checked(path, lambda: load_config(folder))
    _checked(path, lambda: check_values(config, arrays))
    read = _checked(path, lambda: as_mlx_lm_reads(config))
    args = _checked(path, lambda: args_of(read))
    _checked(path, lambda: check_kinds(args, read))
    changes = {key: value for key, value in read.items() if key not in config or config[key] != value}
    try:
        model, config = load_model(folder, lazy=True, model_config=changes)
        mend(model, read)
        model(mx.array([[0, 0]]))  # computes nothing, and says whether all fits
    except FileNotFoundError as error:
        raise ModelError(f"{folder} is not a whole model: {_first_line(error)}") from error
    except Exception as error:  # whatever a model file raises
        raise ModelError(_why_not(error, folder, read, args)) from error
    return model, config


def _checked(path: Path, check: Callable[[], Checked]) -> Checked:
    """What ``check`` gives; what it raises, as an error of the file at ``path``."""
    try:
        return check()
    except ValueError as error:
        raise ModelError(f"{path}: {_first_line(error)}") from error
    except Exception as error:  # a value of a kind that nobody thought of
        raise ModelError(f"{path} is not what mlx-lm reads: {_what(error)}") from error


def _why_not(error: Exception, folder: Path, config: Mapping[str, Any], args: type) -> str:
    """Why mlx-lm does not make a model of a folder."""
    from streamllm.models.config_values import LAYERS, lacking
    from streamllm.models.weights import misfit

    if fault := misfit(error, folder, config, LAYERS):
        one = "Take config.json and weights of one model"
        return f"cannot load {folder}: config.json and the weights do not fit. {fault}. {one}"
    lacks = lacking(args, config)
    what = f"it has no {', '.join(lacks)}" if lacks else _what(error)
    return (
        f"{folder / 'config.json'}: its values are not what mlx-lm {version('mlx-lm')} reads for model_type "
        f"{config['model_type']!r}: {what}. Take a folder that mlx_lm.convert wrote, or a model of another type "
        "(docs/configs.md)"
    )


def _tokenizer(folder: Path, settings: dict[str, Any], end_tokens: Any) -> Any:
    from mlx_lm.utils import load_tokenizer

    try:
        return load_tokenizer(folder, settings, eos_token_ids=end_tokens)
    except BaseException as error:  # a fault inside of the library tokenizers is no Exception
        if isinstance(error, KeyboardInterrupt | SystemExit | GeneratorExit):
            raise
        raise ModelError(tokenizers.fault(folder, _what(error))) from error


def _adapted(model: Any, folder: Path, adapter: Path) -> Any:
    from mlx_lm.utils import load_adapters

    from streamllm.models.weights import arrays_of

    _check_base(folder, adapter)
    try:
        arrays_of(adapter, "adapters.safetensors")
    except ValueError as error:
        raise ModelError(f"cannot apply the adapter {str(adapter)!r}: {error}") from error
    try:
        model = load_adapters(model, str(adapter))
    except Exception as error:  # whatever its configuration makes MLX raise
        raise ModelError(
            f"cannot apply the adapter {str(adapter)!r}: {_what(error)}. It must have been trained on this model"
        ) from error
    _check_whole(model, adapter)
    model.eval()
    return model


def _check_base(folder: Path, adapter: Path) -> None:
    """Raises: ModelError: the adapter says that it was trained on other weights."""
    base = read_settings(adapter).base_weights
    if base is None:
        log.info("%s does not say on which weights it was trained, so nobody can check that they are these", adapter)
    elif base != base_weights(folder):
        trained_on = _read_json(adapter / "adapter_config.json").get("model")
        raise ModelError(
            f"the adapter {adapter} was trained on other weights than those in {folder} now (on those of {trained_on} "
            "then): give model.path=FOLDER with the model that it was trained on"
        )


def _check_whole(model: Any, adapter: Path) -> None:
    """Raises: ModelError: a module that the adapter's configuration names has no weights in its file."""
    config = _read_json(adapter / "adapter_config.json")
    if config.get("fine_tune_type") == "full":
        return
    names = {name for name, _ in tree_flatten(model.parameters()) if name.rpartition(".")[2] in ADAPTED}
    weights: Any = mx.load(str(adapter / "adapters.safetensors"))
    if missing := names - set(weights):
        raise ModelError(
            f"{adapter / 'adapters.safetensors'} lacks {len(missing)} of the {len(names)} weights that "
            f"adapter_config.json names (num_layers is {config.get('num_layers')}), such as {min(missing)}: give the "
            "whole adapter"
        )


def _refuse_own_code(folder: Path) -> None:
    """Raises: ModelError: what mlx-lm and transformers have cannot load it, only code that lies in the folder."""
    from transformers.models.auto.tokenization_auto import tokenizer_class_from_name

    path = folder / "tokenizer_config.json"
    tokenizer = _read_json(path) if path.exists() else {}
    own, name = tokenizer.get("auto_map"), str(tokenizer.get("tokenizer_class")).removesuffix("Fast")
    wants = own.get("AutoTokenizer") if isinstance(own, dict) else own
    known = any(tokenizer_class_from_name(name + ending) for ending in ("", "Fast"))
    if (wants and not known) or "model_file" in _read_json(folder / "config.json"):
        raise ModelError(
            f"{folder} needs code of its own (trust_remote_code), and streamllm runs no code of a model folder: take a "
            "version of the model whose tokenizer and architecture transformers and mlx-lm have"
        )


def _unpacked(model: Any, quantized: bool | None) -> Any:
    if quantized is None:
        quantized = mx.default_device() != mx.Device(mx.cpu)
    if quantized:
        return model
    from mlx_lm.utils import dequantize_model

    return dequantize_model(model)


def _in_dtype(model: Any, dtype: str | None) -> Any:
    """The model with its weights evaluated."""
    if dtype is None and mx.default_device() != mx.Device(mx.cpu):
        mx.eval(model.parameters())
        return model
    try:
        weights = fitted(dict(tree_flatten(model.parameters())), getattr(mx, dtype or "float32"))
    except ValueError as error:
        raise ModelError(f"model.dtype is {dtype!r}: {error}") from error
    model.update(tree_unflatten([*weights.items()]))
    mx.eval(model.parameters())
    return model


def _read_json(path: Path, must: bool = True) -> dict[str, Any]:
    """An object of JSON; with ``must`` False, what is no JSON counts as empty, as mlx-lm has it."""
    try:
        content = parse(path.read_bytes())
    except FileNotFoundError as error:
        raise ModelError(f"{path.parent} has no {path.name}: it is not a model folder") from error
    except (ValueError, RecursionError) as error:
        if not must:
            return {}
        raise ModelError(f"{path} is not JSON: {_first_line(error)}") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path} holds {content!r:.40}; a JSON object is needed, as mlx_lm.load reads (model_type …)")
    return content


def _what(error: BaseException) -> str:
    """A KeyError says only the key, and others nothing without their names."""
    if isinstance(error, KeyError):
        return f"no {error}"
    said = _first_line(error).rstrip(".")
    kind = type(error).__name__
    return said if isinstance(error, ValueError) or kind in (said, "Exception") else f"{said} ({kind})"


def _first_line(error: BaseException) -> str:
    """What an error says in its first line; if that announces a list, with the first of what is in it."""
    first, *rest = str(error).strip().split("\n")
    first = first.rstrip()
    if first.endswith(":") and rest:
        first += f" {contents.listed([line.strip().rstrip(',.') for line in rest])}"
    return first or type(error).__name__
