"""Which model types of mlx-lm can stream: those that tests/models/test_conformance.py has proven, and no others.

``scripts/check_families.py`` writes what it measured to docs/families.md.
"""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

# fmt: off
SUPPORTED: frozenset[str] = frozenset(
    (
        "Klear", "afmoe", "apertus", "bailing_moe", "cohere", "cohere2", "dbrx", "deepseek", "deepseek_v2",
        "deepseek_v3", "dots1", "ernie4_5", "ernie4_5_moe", "exaone", "exaone4", "exaone_moe", "gemma",
        "gemma2", "gemma3", "gemma3_text", "gemma3n", "gemma4", "gemma4_text", "glm", "glm4", "glm4_moe",
        "glm4_moe_lite", "gpt2", "gpt_bigcode", "gpt_neox", "gpt_oss", "gptj", "granite", "granitemoe",
        "helium", "hunyuan", "hunyuan_v1_dense", "internlm2", "internlm3", "iquestloopcoder", "kimi_k25",
        "kimi_vl", "laguna", "lille-130m", "llama", "llama4_text", "mellum", "mimo", "mimo_v2_flash", "minicpm",
        "minicpm3", "minimax", "ministral3", "mistral3", "mistral4", "mixtral", "muse_glimmer", "nanbeige",
        "nanochat", "nemotron", "nemotron-nas", "olmo2", "olmo3", "olmoe", "openelm", "phi", "phi3", "phimoe",
        "phixtral", "pixtral", "plamo", "plamo3", "qwen", "qwen2", "qwen2_moe", "qwen2_vl", "qwen3",
        "qwen3_moe", "qwen3_vl", "qwen3_vl_moe", "seed_oss", "smollm3", "solar_open", "spark2_5", "stablelm",
        "starcoder2", "step3p5", "talkie", "telechat3", "youtu_llm",
    )
)
# fmt: on

_RECURRENT = "it keeps a recurrent state, which cannot hold a source and a target apart"
_CACHE_LIST = "its layers keep several caches each (CacheList)"
_METAL = "its kernels need Metal, so it could not be proven"

REFUSED: dict[str, str] = {
    **dict.fromkeys(
        (
            "baichuan_m1",
            "bailing_hybrid",
            "bailing_moe_linear",
            "falcon_h1",
            "granitemoehybrid",
            "jamba",
            "kimi_linear",
            "lfm2",
            "lfm2_moe",
            "mamba",
            "mamba2",
            "nemotron_h",
            "plamo2",
            "qwen3_5",
            "qwen3_5_moe",
            "qwen3_next",
            "recurrent_gemma",
            "rwkv7",
        ),
        _RECURRENT,
    ),
    **dict.fromkeys(("deepseek_v32", "glm_moe_dsa", "longcat_flash", "minimax_m3_vl"), _CACHE_LIST),
    **dict.fromkeys(("bitnet", "muse_spark"), _METAL),
    "afm7": "it takes positions from the number of keys, which here counts both streams",
    "llama4": "it attends in chunks of positions (ChunkedKVCache), which two streams do not share",
    "olmo": "mlx-lm loads it only with the package ai2-olmo, so it could not be proven",
    "phi3small": "its block-sparse attention goes by the place of a key in memory, where both streams lie",
}
"""Why some well-known model types are not supported."""

_GROUPED = frozenset({"gemma2"})  # computes attention itself, with the queries that share a key as an axis

NO_ADAPTER: dict[str, tuple[str, ...]] = {"gemma3n": ("altup.",)}
"""How modules of a block begin that no adapter can stand for: the model takes their weights without calling them."""

_EXAMPLES = ("qwen2", "qwen3", "llama", "mistral", "gemma3_text", "phi3", "qwen3_moe", "deepseek_v3")


def resolve(model_type: str) -> str:
    """The model type whose file mlx-lm loads (mistral is llama, qwen2_5_vl is qwen2_vl, …)."""
    from mlx_lm.utils import MODEL_REMAPPING

    return str(MODEL_REMAPPING.get(model_type, model_type))


def args_of(config: Mapping[str, Any]) -> type:
    """The ``ModelArgs`` of the file of mlx-lm that loads a model with this config.json."""
    args: type = import_module(f"mlx_lm.models.{resolve(config['model_type'])}").ModelArgs
    return args


def check_supported(model_type: str) -> None:
    """Raises: ValueError: models of this type (``model_type`` of config.json) have not been proven to stream."""
    resolved = resolve(model_type)
    if resolved in SUPPORTED:
        return
    loaded_as = "" if resolved == model_type else f" (loaded as {resolved!r})"
    why = REFUSED.get(resolved, "it has not been proven")
    raise ValueError(
        f"model_type {model_type!r}{loaded_as} is not supported: {why}. Accepted are the {len(SUPPORTED)} types "
        f"listed in docs/families.md, among them {', '.join(_EXAMPLES)}. Choose a model of one of these, or add a "
        "tiny configuration of this type to tests/families.py and run scripts/check_families.py to see whether "
        "it streams exactly."
    )


def groups_queries(model: Any) -> bool:
    """Whether the attention scores of ``model``, and so its masks, have an axis for the queries that share a key:
    (B, H_kv, H / H_kv, T, S) instead of (B, H, T, S)."""
    return resolve(model.model_type) in _GROUPED and bool(model.layers[0].self_attn.repeats > 1)
