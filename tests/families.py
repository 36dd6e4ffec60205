"""A tiny configuration of each model family that the conformance test runs, with sliding windows shorter than
its streams."""

from dataclasses import dataclass, field
from typing import Any, Literal

VOCABULARY = 48
WINDOW = 4
LAYERS = 3
SLIDING = ["sliding_attention", "full_attention", "sliding_attention"]

BASE: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": LAYERS,
    "num_layers": LAYERS,
    "intermediate_size": 40,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "vocab_size": VOCABULARY,
    "rms_norm_eps": 1e-5,
    "layer_norm_eps": 1e-5,
    "layer_norm_epsilon": 1e-5,
    "norm_eps": 1e-5,
    "rope_theta": 1000.0,
    "max_position_embeddings": 512,
    "tie_word_embeddings": False,
    "attention_bias": False,
    "mlp_bias": False,
    "use_bias": False,
    "rope_scaling": None,
}
MOE: dict[str, Any] = {
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 24,
    "shared_expert_intermediate_size": 24,
    "n_shared_experts": 1,
    "num_shared_experts": 1,
    "norm_topk_prob": True,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
    "first_k_dense_replace": 1,
    "routed_scaling_factor": 1.0,
    "n_group": 1,
    "topk_group": 1,
    "moe_layer_freq": 1,
    "scoring_func": "sigmoid",
    "topk_method": "noaux_tc",
}
MLA: dict[str, Any] = {
    "num_key_value_heads": 4,
    "kv_lora_rank": 12,
    "q_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 12,
}
GPT: dict[str, Any] = {"n_embd": 32, "n_head": 4, "n_layer": LAYERS, "n_ctx": 64, "n_positions": 64, "n_inner": 64}
QWEN3 = BASE | {"model_type": "qwen3"}
DEEPSEEK_V3 = BASE | MOE | MLA
YARN = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64, "mscale": 1.0, "mscale_all_dim": 1.0}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
LLAMA4_SCALING = {
    "rope_type": "default",
    "rope_theta": 1000.0,
    "llama_4_scaling_beta": 0.1,
    "original_max_position_embeddings": 8,
}
WINDOWED = BASE | {"sliding_window": WINDOW, "sliding_window_pattern": 2, "layer_types": SLIDING}
ROPE_BY_KIND = {
    kind: {"rope_type": "default", "rope_theta": theta, "partial_rotary_factor": 1.0}
    for kind, theta in (("full_attention", 1000.0), ("sliding_attention", 100.0))
}


@dataclass(frozen=True)
class Family:
    """A configuration of one model type.

    ``reference`` says how the reference computes: "rows" (one forward, a row for each token) or "sequential"
    (a token at a time), for models that take no array for the position or no mask for each row.
    """

    model_type: str
    config: dict[str, Any] = field(hash=False)
    reference: Literal["rows", "sequential"] = "rows"
    variant: str = ""

    @property
    def name(self) -> str:
        return f"{self.model_type}-{self.variant}" if self.variant else self.model_type


def _family(model_type: str, *parts: dict[str, Any], **kwargs: Any) -> Family:
    config: dict[str, Any] = {"model_type": model_type}
    for part in parts:
        config |= part
    return Family(model_type, config | {"model_type": model_type}, **kwargs)


FAMILIES: tuple[Family, ...] = (
    # Dense
    _family("apertus", BASE, {"post_norm": False, "qk_norm": True}),
    _family("cohere", BASE, {"logit_scale": 0.5, "use_qk_norm": True}),
    _family("ernie4_5", BASE),
    _family("exaone", BASE),
    _family("gemma", BASE),
    _family("gemma2", BASE, {"query_pre_attn_scalar": 8.0}, reference="sequential"),
    _family("glm", BASE),
    _family("glm4", BASE, {"partial_rotary_factor": 0.5}),
    _family("gpt2", BASE, GPT),
    _family("gpt_bigcode", BASE, GPT, {"num_key_value_heads": None}, reference="sequential"),
    _family("gpt_neox", BASE, {"num_key_value_heads": 4, "rotary_emb_base": 1000, "rotary_pct": 0.5}),
    _family("gptj", BASE, GPT, {"rotary_dim": 4}),
    _family(
        "granite",
        BASE,
        {"logits_scaling": 2.0, "attention_multiplier": 0.3, "embedding_multiplier": 3.0, "residual_multiplier": 0.5},
    ),
    _family("helium", BASE),
    _family("hunyuan_v1_dense", BASE),
    _family("internlm2", BASE),
    _family("internlm3", BASE, reference="sequential"),
    _family("lille-130m", BASE, GPT, {"n_embd": 64, "n_kv_heads": 2, "block_size": 64}),
    _family("llama", BASE, {"rope_scaling": LLAMA3_ROPE}),
    _family("llama", WINDOWED, variant="sliding"),
    _family("llama4_text", BASE, {"intermediate_size_mlp": 40, "no_rope_layers": [1, 0, 1], "use_qk_norm": True}),
    _family("mimo", BASE),
    _family("minicpm", BASE, {"dim_model_base": 16, "scale_depth": 1.4, "scale_emb": 3.0}),
    _family("nanbeige", BASE, {"num_loops": 2}),
    _family("nanochat", BASE),
    _family("nemotron", BASE, {"hidden_act": "relu2"}),
    _family(
        "nemotron-nas",
        BASE,
        {
            "block_configs": [
                {"attention": {"n_heads_in_group": 2}, "ffn": {"ffn_mult": 1.0}},
                {"attention": {"no_op": True}, "ffn": {"ffn_mult": 1.0}},
                {"attention": {"n_heads_in_group": 4}, "ffn": {"no_op": True}},
            ]
        },
    ),
    _family("olmo2", BASE),
    _family(
        "openelm",
        BASE,
        {
            "num_transformer_layers": LAYERS,
            "model_dim": 32,
            "ffn_dim_divisor": 8,
            "num_query_heads": [4] * LAYERS,
            "num_kv_heads": [2] * LAYERS,
            "ffn_multipliers": [1.0] * LAYERS,
        },
    ),
    _family("phi", BASE, {"partial_rotary_factor": 0.5}),
    _family("phi3", BASE),
    _family(
        "phi3",
        BASE,
        {
            "rope_scaling": {"type": "longrope", "long_factor": [1.0, 1.5, 2.0, 4.0], "short_factor": [1.0] * 4},
            "original_max_position_embeddings": 64,
        },
        variant="longrope",
    ),
    _family("plamo", BASE, {"n_shared_head": 2}),
    _family("qwen", BASE, {"kv_channels": 8}),
    _family("qwen2", BASE),
    _family("qwen3", BASE),
    _family("seed_oss", BASE),
    _family("smollm3", BASE, {"no_rope_layer_interval": 2}),
    _family("stablelm", BASE, {"use_qkv_bias": True, "partial_rotary_factor": 0.5, "qk_layernorm": True}),
    _family("starcoder2", BASE),
    _family("talkie", BASE),
    _family("telechat3", BASE),
    # Dense with a sliding window
    _family("cohere2", WINDOWED, {"logit_scale": 0.5}),
    _family("exaone4", WINDOWED, {"sliding_window_pattern": "LG"}),
    _family("gemma3", {"vocab_size": VOCABULARY, "text_config": WINDOWED | {"model_type": "gemma3_text"}}),
    _family("gemma3_text", WINDOWED, {"query_pre_attn_scalar": 8.0}),
    _family(
        "gemma3n",
        {
            "text_config": WINDOWED
            | {
                "model_type": "gemma3n_text",
                "num_hidden_layers": 4,
                "num_kv_shared_layers": 2,
                "layer_types": ["sliding_attention", "full_attention"] * 2,
                "vocab_size_per_layer_input": VOCABULARY,
                "rope_local_base_freq": 100.0,
                "final_logit_softcapping": 30.0,
                "activation_sparsity_pattern": [0.0] * 4,
                "hidden_size_per_layer_input": 8,
                "altup_num_inputs": 2,
                "altup_coef_clip": 120.0,
                "altup_correct_scale": True,
                "altup_active_idx": 0,
                "laurel_rank": 4,
            }
        },
    ),
    _family(
        "gemma4_text",
        WINDOWED,
        {
            "num_hidden_layers": 4,
            "num_kv_shared_layers": 2,
            "layer_types": ["sliding_attention", "full_attention"] * 2,
            "global_head_dim": 16,
            "vocab_size_per_layer_input": VOCABULARY,
            "hidden_size_per_layer_input": 8,
        },
    ),
    _family(
        "gemma4",
        {
            "vocab_size": VOCABULARY,
            "text_config": WINDOWED
            | {
                "model_type": "gemma4_text",
                "num_kv_shared_layers": 0,
                "global_head_dim": 16,
                "vocab_size_per_layer_input": VOCABULARY,
                "hidden_size_per_layer_input": 8,
            },
        },
    ),
    _family("iquestloopcoder", BASE, {"loop_num": 2, "loop_window_size": WINDOW}),
    _family("ministral3", WINDOWED, {"rope_parameters": LLAMA4_SCALING}),
    _family("mistral3", {"text_config": WINDOWED | {"model_type": "mistral"}}),
    _family(
        "mistral3",
        {"text_config": WINDOWED | {"model_type": "ministral3", "rope_parameters": LLAMA4_SCALING}},
        variant="ministral3",
    ),
    _family(
        "mistral3",
        {"text_config": DEEPSEEK_V3 | {"model_type": "mistral4", "rope_parameters": LLAMA4_SCALING}},
        variant="mistral4",
    ),
    _family("muse_glimmer", WINDOWED, {"qk_scale_factor": 1.5}),
    _family("olmo3", WINDOWED),
    _family("pixtral", {"text_config": WINDOWED | {"model_type": "mistral"}}),
    _family("plamo3", WINDOWED, {"window_size": WINDOW}),
    _family("spark2_5", WINDOWED, {"rope_parameters": ROPE_BY_KIND}),
    # Vision models without the vision
    _family("qwen2_vl", {"text_config": BASE | {"model_type": "qwen2_vl"}}),
    _family("qwen3_vl", {"text_config": QWEN3}),
    # Mixtures of experts
    _family("Klear", BASE, MOE),
    _family("afmoe", WINDOWED, MOE, {"num_dense_layers": 1}),
    _family("bailing_moe", BASE, MOE, {"use_qk_norm": True}),
    _family(
        "dbrx",
        {
            "vocab_size": VOCABULARY,
            "d_model": 32,
            "n_layers": LAYERS,
            "n_heads": 4,
            "ffn_config": {"ffn_hidden_size": 24, "moe_num_experts": 4, "moe_top_k": 2},
            "attn_config": {"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 1000.0},
        },
    ),
    _family("deepseek", BASE, MOE),
    _family("dots1", BASE, MOE),
    _family("ernie4_5_moe", BASE, MOE, {"moe_num_experts": 4, "moe_k": 2, "moe_layer_start_index": 1}),
    _family(
        "exaone_moe",
        WINDOWED,
        MOE,
        {"is_moe_layer": [False, True, True]},
    ),
    _family("glm4_moe", BASE, MOE, {"use_qk_norm": True, "partial_rotary_factor": 0.5}),
    _family(
        "gpt_oss",
        WINDOWED,
        MOE,
        {"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}},
    ),
    _family(
        "granitemoe",
        BASE,
        MOE,
        {"logits_scaling": 2.0, "attention_multiplier": 0.3, "embedding_multiplier": 3.0, "residual_multiplier": 0.5},
    ),
    _family(
        "hunyuan",
        BASE,
        MOE,
        {
            "moe_topk": 2,
            "num_shared_expert": 1,
            "use_mixed_mlp_moe": True,
            "use_qk_norm": True,
            "use_cla": True,
            "cla_share_factor": 2,
            "rope_scaling": {"type": "dynamic", "factor": 1.0, "alpha": 4.0},
        },
    ),
    _family("laguna", WINDOWED, MOE, {"num_attention_heads_per_layer": [4, 4, 4]}),
    _family("mellum", WINDOWED, MOE, {"rope_parameters": ROPE_BY_KIND}),
    _family(
        "mimo_v2_flash",
        WINDOWED,
        MOE,
        {
            "hybrid_layer_pattern": [1, 0, 1],
            "moe_layer_freq": [0, 1, 1],
            "add_swa_attention_sink_bias": True,
            "add_full_attention_sink_bias": False,
            "sliding_window_size": WINDOW,
            "layernorm_epsilon": 1e-5,
            "swa_rope_theta": 100.0,
            "swa_num_attention_heads": 4,
            "swa_num_key_value_heads": 2,
            "v_head_dim": 12,
            "swa_head_dim": 8,
            "swa_v_head_dim": 12,
            "partial_rotary_factor": 0.5,
            "n_shared_experts": None,
        },
    ),
    _family("minimax", BASE, MOE, {"shared_intermediate_size": 24, "rotary_dim": 4}),
    _family("mixtral", BASE, MOE),
    _family("olmoe", BASE, MOE),
    _family(
        "phimoe",
        BASE,
        MOE,
        {
            "original_max_position_embeddings": 64,
            "rope_scaling": {
                "long_factor": [1.0, 1.5, 2.0, 4.0],
                "short_factor": [1.0] * 4,
                "long_mscale": 1.2,
                "short_mscale": 1.1,
                "type": "longrope",
            },
        },
    ),
    _family(
        "phixtral",
        MOE,
        {"num_vocab": VOCABULARY, "model_dim": 32, "num_heads": 4, "num_layers": LAYERS, "rotary_dim": 4},
    ),
    _family("qwen2_moe", BASE, MOE),
    _family("qwen3_moe", BASE, MOE),
    _family("qwen3_vl_moe", {"text_config": BASE | MOE | {"model_type": "qwen3_moe"}}),
    _family("solar_open", BASE, MOE, {"partial_rotary_factor": 1.0}),
    _family(
        "step3p5",
        WINDOWED,
        MOE,
        {
            "num_attention_groups": 2,
            "attention_other_setting": {"num_attention_heads": 4, "num_attention_groups": 2},
            "moe_num_experts": 4,
            "moe_top_k": 2,
            "share_expert_dim": 24,
        },
    ),
    # Multi-head latent attention
    _family("deepseek_v2", DEEPSEEK_V3, {"topk_method": "greedy", "rope_scaling": YARN}),
    _family("deepseek_v3", DEEPSEEK_V3),
    _family("deepseek_v3", DEEPSEEK_V3, {"rope_scaling": YARN}, variant="yarn"),
    _family("glm4_moe_lite", DEEPSEEK_V3),
    _family("kimi_k25", {"text_config": DEEPSEEK_V3}),
    _family("kimi_vl", {"text_config": DEEPSEEK_V3}),
    _family(
        "minicpm3",
        BASE,
        MLA,
        {
            "dim_model_base": 16,
            "scale_depth": 1.4,
            "scale_emb": 3.0,
            "rope_scaling": {
                "type": "longrope",
                "long_factor": [1.0, 1.5, 2.0, 4.0],
                "short_factor": [1.0] * 4,
                "original_max_position_embeddings": 64,
            },
        },
    ),
    _family("mistral4", DEEPSEEK_V3, {"rope_parameters": LLAMA4_SCALING}),
    _family("youtu_llm", BASE, MLA),
)
