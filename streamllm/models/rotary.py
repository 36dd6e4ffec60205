"""The rotary settings of a config.json as transformers 5 writes them (`rope_parameters`), in the keys that each model
file of mlx-lm reads. What a file cannot compute is refused: a rotary base is never left to a default."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from streamllm.models.rotary_scaling import ADVICE, as_longrope, as_yarn, short_factors

LAYER_LABELS = ("full_attention", "sliding_attention", "chunked_attention", "linear_attention")

_KEYS: dict[str, tuple[str, ...]] = {
    "default": (),
    "linear": ("factor",),
    "dynamic": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
    "yarn": (
        "factor",
        "original_max_position_embeddings",
        "beta_fast",
        "beta_slow",
        "mscale",
        "mscale_all_dim",
        "attention_factor",
        "truncate",
    ),
    "longrope": ("short_factor", "long_factor", "original_max_position_embeddings", "factor", "attention_factor"),
    "proportional": ("factor",),
}
"""What each kind of rotary embedding takes besides its base and share (transformers/modeling_rope_utils.py)."""

_ALWAYS = ("rope_type", "type", "rope_theta", "partial_rotary_factor")
_OF_PICTURES = ("mrope_section", "mrope_interleaved")  # text has the same position on all three axes


@dataclass(frozen=True)
class Rotary:
    """Where a model file of mlx-lm takes its rotary settings.

    Args:
        base: key of the base; None if the file has a base of its own, 10,000.
        sliding: key of the base of sliding-window layers, where it differs.
        share: key of the share of a head that is rotated; None if the file rotates all of what it rotates.
        scaled: the kinds of rotary embedding besides "default" that the file computes.
        place: "flat" (keys of the config), "parameters" (the file reads rope_parameters itself), "by_layer" (the file
            reads rope_parameters by layer type).
        extra: further keys of rope_parameters that the file reads.
    """

    base: str | None = "rope_theta"
    sliding: str | None = None
    share: str | None = None
    scaled: tuple[str, ...] = ()
    place: Literal["flat", "parameters", "by_layer"] = "flat"
    extra: tuple[str, ...] = ()


_UNTRUNCATED = ("gpt_oss",)  # for which `mend` is proven
_ANY = ("linear", "dynamic", "llama3", "yarn", "longrope")
_SHARE = "partial_rotary_factor"
_ALPHA = ("alpha", "beta_fast", "beta_slow", "mscale", "mscale_all_dim")  # all but alpha are read by nobody
_LLAMA_4 = ("llama_4_scaling_beta", "original_max_position_embeddings", "max_position_embeddings")


def _each(types: str, rotary: Rotary | None) -> dict[str, Rotary | None]:
    return dict.fromkeys(types.split(), rotary)


ROTARY: dict[str, Rotary | None] = {
    **_each(
        "afmoe apertus dots1 exaone exaone4 exaone_moe granite granitemoe iquestloopcoder llama mimo minicpm nanbeige "
        "nemotron-nas olmo2 olmo3 olmoe qwen2 qwen3 seed_oss smollm3 telechat3",
        Rotary(scaled=_ANY),
    ),
    **_each("deepseek_v3 glm4_moe_lite youtu_llm", Rotary(scaled=("yarn",))),
    **_each(
        "Klear cohere cohere2 ernie4_5 ernie4_5_moe gemma gemma2 helium lille-130m llama4_text mixtral "
        "muse_glimmer nanochat plamo qwen2_moe qwen3_moe starcoder2 talkie",
        Rotary(),
    ),
    **_each("glm glm4 glm4_moe minimax phi solar_open stablelm", Rotary(share=_SHARE)),
    **_each("gpt2 gpt_bigcode", None),
    **_each("gptj phixtral qwen", Rotary(base=None)),
    **_each("internlm2 internlm3", Rotary(scaled=("linear", "dynamic"))),
    **_each("ministral3", Rotary(scaled=_ANY, place="parameters", extra=_LLAMA_4)),
    **_each("mistral4", Rotary(scaled=("yarn",), place="parameters", extra=_LLAMA_4)),
    **_each("hunyuan hunyuan_v1_dense", Rotary(scaled=("dynamic",), extra=_ALPHA)),
    "bailing_moe": Rotary(share=_SHARE, scaled=_ANY),
    "dbrx": Rotary(base="attn_config.rope_theta"),
    "deepseek": Rotary(scaled=("linear",)),
    "deepseek_v2": Rotary(scaled=("yarn",)),
    "gemma3_text": Rotary(sliding="rope_local_base_freq", scaled=_ANY),
    "gemma3n": Rotary(sliding="rope_local_base_freq"),
    "gemma4_text": Rotary(place="by_layer", share=_SHARE, scaled=("proportional",)),
    "gpt_neox": Rotary(base="rotary_emb_base", share="rotary_pct"),
    "gpt_oss": Rotary(scaled=("linear", "llama3", "yarn")),
    "laguna": Rotary(place="by_layer", share=_SHARE, scaled=_ANY),
    "mellum": Rotary(place="by_layer", scaled=("yarn", "llama3", "dynamic")),
    "mimo_v2_flash": Rotary(sliding="swa_rope_theta", share=_SHARE),
    "minicpm3": Rotary(scaled=("longrope",)),
    "nemotron": Rotary(share=_SHARE, scaled=("linear",)),
    "openelm": Rotary(base="rope_freq_constant"),
    "phi3": Rotary(share=_SHARE, scaled=("longrope",)),
    "phimoe": Rotary(scaled=("longrope",), extra=("short_mscale", "long_mscale")),
    "plamo3": Rotary(sliding="rope_local_theta"),
    "spark2_5": Rotary(place="by_layer", share=_SHARE),
    "step3p5": Rotary(share="partial_rotary_factors", scaled=_ANY),
}
"""Each type of `SUPPORTED` that computes text itself. None: it has a table of positions and no rotary embedding."""


@dataclass(frozen=True)
class Setting:
    """The rotary embedding of a layer: its base, the share of a head that is rotated (None: not said), and what
    `rope_scaling` holds of it (None: nothing)."""

    base: float
    share: float | None
    scaling: dict[str, Any] | None


def flattened(config: Mapping[str, Any], model_type: str) -> dict[str, Any]:
    """What must change in ``config`` for the file of ``model_type`` to compute what `rope_parameters` says.

    Args:
        config: of the text model, with `rope_parameters` or in the old form (`rope_theta`, `rope_scaling`).
        model_type: one of `ROTARY`.

    Raises:
        ValueError: the file cannot compute it; the message names the key and its value.
    """
    rotary = ROTARY[model_type]
    parameters = config.get("rope_parameters")
    if rotary is None:
        return {}
    if not parameters:
        return _old_form(config, model_type, rotary)
    if not isinstance(parameters, dict):
        raise ValueError(f"rope_parameters is {parameters!r:.60}; a JSON object is needed, as transformers writes it")
    _check_scaling_agrees(config, parameters)
    labels = [key for key in parameters if key in LAYER_LABELS]
    if not labels:
        settings = {"": _setting(parameters, config, model_type, rotary, "rope_parameters")}
    else:
        others = sorted(set(parameters) - set(labels))
        if others:
            raise ValueError(
                f"rope_parameters holds layer types and {', '.join(others)}={parameters[others[0]]!r:.40} beside "
                f"them: nobody says for which layers. Move {others[0]} into the layer types it is meant for"
            )
        settings = {
            label: _setting(parameters[label], config, model_type, rotary, f"rope_parameters.{label}")
            for label in labels
            if parameters[label]
        }
    return _placed(settings, config, model_type, rotary)


def _check_scaling_agrees(config: Mapping[str, Any], parameters: Mapping[str, Any]) -> None:
    for key, value in (config.get("rope_scaling") or {}).items():
        if key in parameters and parameters[key] != value:
            raise ValueError(
                f"rope_scaling says {key}={value!r:.40}, rope_parameters {parameters[key]!r:.40}: remove from "
                "config.json the one that the model was not trained with"
            )


def _setting(
    given: Mapping[str, Any], config: Mapping[str, Any], model_type: str, rotary: Rotary, where: str
) -> Setting:
    """Checks every key of ``given`` (one layer type's part of `rope_parameters`)."""
    given = {key: value for key, value in given.items() if value is not None}
    kind = given.get("rope_type", given.get("type", "default"))
    kind = {"su": "longrope", "mrope": "default"}.get(kind, kind)
    if kind != "default" and kind not in rotary.scaled:
        raise ValueError(
            f"{where}.rope_type is {kind!r}, which mlx-lm's file of type {model_type!r} does not compute (it "
            f"computes {', '.join(('default', *rotary.scaled))}). {ADVICE}"
        )
    if "rope_theta" not in given:
        raise ValueError(f"{where} has no rope_theta: add the base that the model was trained with to config.json")
    known = {*_ALWAYS, *_OF_PICTURES, *rotary.extra, *_KEYS[kind]}
    for key, value in given.items():
        if key not in known:
            raise ValueError(
                f"{where}.{key} is {value!r:.40}, and nothing is known of such a key for {kind!r} rotary "
                f"embeddings of type {model_type!r}. If the model computes the same without it, remove it from "
                "config.json"
            )
    extra = rotary.extra if kind != "default" or rotary.place == "parameters" else ()
    scaling: dict[str, Any] = {key: given[key] for key in (*_KEYS[kind], *extra) if key in given}
    if kind == "yarn":
        _check_truncated(scaling, model_type, where)
        scaling = as_yarn(scaling, config, where)
    elif kind == "longrope":
        scaling = as_longrope(scaling, config, where)
    elif kind == "linear":
        scaling["factor"] = float(scaling["factor"])  # some files insist
    elif kind == "llama3":
        scaling.setdefault("original_max_position_embeddings", config.get("max_position_embeddings"))
    elif kind == "dynamic" and model_type.startswith("hunyuan") and not scaling.get("alpha"):
        raise ValueError(
            f"{where}.rope_type is 'dynamic' without alpha, which mlx-lm's file of type {model_type!r} does not "
            f"compute. {ADVICE}"
        )
    named = {"rope_type": kind, "type": kind} | scaling if kind != "default" or scaling else None
    return Setting(given["rope_theta"], given.get("partial_rotary_factor"), named)


def _check_truncated(scaling: Mapping[str, Any], model_type: str, where: str) -> None:
    if scaling.get("truncate") is False and model_type not in _UNTRUNCATED:
        raise ValueError(
            f"{where}.truncate is False, and mlx-lm's file of type {model_type!r} rounds where yarn begins. {ADVICE}"
        )


def _old_form(config: Mapping[str, Any], model_type: str, rotary: Rotary) -> dict[str, Any]:
    """A configuration in the old form is left as it is, but for what mlx-lm would compute otherwise, unasked."""
    if rotary.base is None and (base := config.get("rotary_emb_base", 10000)) != 10000:
        raise ValueError(
            f"rotary_emb_base is {base}, and mlx-lm's file of type {model_type!r} has 10000 written into it. {ADVICE}"
        )
    scaling = config.get("rope_scaling")
    if not isinstance(scaling, dict):
        return {}
    kind = scaling.get("rope_type") or scaling.get("type") or "default"
    if kind in ("longrope", "su") and "longrope" in rotary.scaled:
        return {"rope_scaling": scaling | short_factors(scaling)}
    if kind == "yarn" and "yarn" in rotary.scaled:
        _check_truncated(scaling, model_type, "rope_scaling")
        said = as_yarn(dict(scaling), config, "rope_scaling")
        return {} if said == scaling else {"rope_scaling": said}
    if kind not in ("default", "mrope", "deepseek_yarn", "telechat3-yarn", *rotary.scaled):
        raise ValueError(
            f"rope_scaling is of type {kind!r}, which mlx-lm's file of type {model_type!r} leaves out without a "
            f"word. {ADVICE}"
        )
    return {}


def _placed(
    settings: Mapping[str, Setting], config: Mapping[str, Any], model_type: str, rotary: Rotary
) -> dict[str, Any]:
    types = set(config.get("layer_types") or ()) or set(settings) - {""} or {"full_attention"}
    full = settings.get("") or settings.get("full_attention") or next(iter(settings.values()))
    of_type = {label: settings.get(label) or settings.get("") for label in types}
    if missing := sorted(label for label, setting in of_type.items() if setting is None):
        raise ValueError(f"rope_parameters has no {missing[0]!r}, and layer_types has layers of it: add it")
    sliding = of_type.get("sliding_attention") or full
    if rotary.place == "by_layer":
        return {
            "rope_parameters": {
                label: _as_parameters(setting) for label, setting in of_type.items() if setting is not None
            }
        }
    if rotary.place == "parameters":
        _check_equal(of_type, model_type)
        _check_share(full, config, model_type)
        return {"rope_parameters": _as_parameters(full), "rope_theta": full.base}
    changes: dict[str, Any] = {"rope_parameters": None, "rope_scaling": full.scaling}
    if model_type == "step3p5":
        return changes | _by_list(of_type, config)
    if model_type == "olmo3":
        _check_olmo3(full, sliding)
    elif rotary.sliding is None:
        _check_equal(of_type, model_type)
    elif sliding.scaling is not None or sliding.share != full.share:
        raise ValueError(
            f"rope_parameters.sliding_attention scales or has a share of its own, and mlx-lm's file of type "
            f"{model_type!r} takes only its base. {ADVICE}"
        )
    if rotary.sliding is not None:
        changes[rotary.sliding] = sliding.base
    if rotary.base is None:
        if full.base != 10000:
            raise ValueError(
                f"rope_parameters.rope_theta is {full.base:g}, and mlx-lm's file of type {model_type!r} has 10000 "
                f"written into it. {ADVICE}"
            )
    elif "." in rotary.base:
        part, key = rotary.base.split(".")
        changes[part] = {**config.get(part, {}), key: full.base}
    else:
        changes[rotary.base] = full.base
    if rotary.share is None:
        _check_share(full, config, model_type)
    else:  # transformers takes 1 where the share is not said, mlx-lm's files take what the first model of a type had
        changes[rotary.share] = config.get(rotary.share, 1.0) if full.share is None else full.share
    return changes | _particular(full, config, model_type)


def _as_parameters(setting: Setting) -> dict[str, Any]:
    share = {} if setting.share is None else {"partial_rotary_factor": setting.share}
    scaling = setting.scaling or {"rope_type": "default"}
    return {**scaling, **share, "rope_theta": setting.base}


def _check_equal(settings: Mapping[str, Setting | None], model_type: str) -> None:
    """Raises: ValueError: layer types differ where the file has one rotary embedding for all."""
    first, *others = settings.values()
    if any(other != first for other in others):
        raise ValueError(
            f"rope_parameters differs between {' and '.join(sorted(settings))}, and mlx-lm's file of type "
            f"{model_type!r} has one rotary embedding for all layers. {ADVICE}"
        )


def _check_olmo3(full: Setting, sliding: Setting) -> None:
    if full.base != sliding.base or sliding.scaling is not None:
        raise ValueError(
            f"rope_parameters.sliding_attention.rope_theta is {sliding.base:g} and that of full_attention "
            f"{full.base:g}, and mlx-lm's file of type 'olmo3' has one base, scaled on full layers only. {ADVICE}"
        )


def _check_share(setting: Setting, config: Mapping[str, Any], model_type: str) -> None:
    """Raises: ValueError: a part of each head is rotated, and the file rotates all of it."""
    share = setting.share
    if share is None or share == 1.0:
        return
    if rotated := config.get("qk_rope_head_dim"):  # latent attention: the rotated part has a size of its own
        whole = rotated + config.get("qk_nope_head_dim", 0)
        if int(share * whole) == rotated or int(share * (config.get("head_dim") or 0)) == rotated:
            return
    raise ValueError(
        f"rope_parameters.partial_rotary_factor is {share}, and mlx-lm's file of type {model_type!r} rotates whole "
        f"heads. {ADVICE}"
    )


def _by_list(settings: Mapping[str, Setting | None], config: Mapping[str, Any]) -> dict[str, Any]:
    """step3p5: bases and shares as lists over layers, one scaling for the layer types that it is said to be for."""
    types = config.get("layer_types") or ["full_attention"] * config["num_hidden_layers"]
    ordered = [settings[label] for label in types]
    scaled = {label: setting.scaling for label, setting in settings.items() if setting and setting.scaling}
    if len({repr(scaling) for scaling in scaled.values()}) > 1:
        raise ValueError(
            f"rope_parameters scales {' and '.join(sorted(scaled))} differently, and step3p5 has one scaling"
        )
    return {
        "rope_scaling": next(iter(scaled.values()), None),
        "yarn_only_types": sorted(scaled) or None,
        "rope_theta": [setting.base for setting in ordered if setting],
        "partial_rotary_factors": [1.0 if setting.share is None else setting.share for setting in ordered if setting],
    }


def _particular(setting: Setting, config: Mapping[str, Any], model_type: str) -> dict[str, Any]:
    """What single files need besides: most of them cannot be told that nothing is scaled."""
    scaling, longest = setting.scaling, config.get("max_position_embeddings")
    head = config.get("head_dim") or (
        config["hidden_size"] // config["num_attention_heads"] if "hidden_size" in config else 0
    )
    if model_type == "minimax":
        return {
            "rotary_dim": int(head * setting.share) if setting.share is not None else config.get("rotary_dim", head)
        }
    if model_type == "bailing_moe" and setting.share is not None:
        return {"rotary_dim": None}
    if model_type == "muse_glimmer" and (others := set(config.get("layer_rope_theta") or ()) - {0, setting.base}):
        raise ValueError(
            f"layer_rope_theta holds {others.pop():g} beside rope_parameters.rope_theta={setting.base:g}, and mlx-lm's "
            f"file of type {model_type!r} has one base. {ADVICE}"
        )
    if model_type in ("phi3", "phimoe") and scaling and "original_max_position_embeddings" in scaling:
        return {"original_max_position_embeddings": scaling["original_max_position_embeddings"]}
    if scaling is not None:
        return {}
    if model_type == "deepseek_v2":
        return {"rope_scaling": {"type": "yarn", "factor": 1.0, "original_max_position_embeddings": longest}}
    if model_type == "minicpm3":
        return {"rope_scaling": {"type": "longrope", "original_max_position_embeddings": longest, "long_factor": 1.0}}
    if model_type == "hunyuan":
        return {"rope_scaling": {"type": "dynamic", "alpha": 1.0, "factor": 1.0}}
    return {}
