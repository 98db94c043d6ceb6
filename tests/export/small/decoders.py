"""Decoders of texts, most with fewer key and value heads than query heads, and classifiers on them."""

from tests.export.small.family import GPT2, GROUPED, SPECIAL, TEXT, Family, families

_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
_ROUTED = {"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "first_k_dense_replace": 1}
_LATENT = {"num_key_value_heads": 4, "q_lora_rank": 16, "kv_lora_rank": 16}
_LATENT |= {"qk_rope_head_dim": 4, "qk_nope_head_dim": 4, "v_head_dim": 8}
_PARTLY_ROTARY = {"partial_rotary_factor": 0.5}
_GPT_NEO = SPECIAL | {"hidden_size": 32, "num_layers": 2, "num_heads": 4, "max_position_embeddings": 64}
_GPT_NEO |= {"window_size": 8, "attention_types": [[["global", "local"], 1]]}
_MPT = SPECIAL | {"d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 64}
_XGLM = SPECIAL | {"d_model": 32, "num_layers": 2, "attention_heads": 4, "ffn_dim": 48, "max_position_embeddings": 64}

DECODERS: dict[str, Family] = {
    **families(
        GROUPED,
        {
            "apertus": {},
            "arcee": {},
            "bitnet": {},
            "cohere": {},
            "cohere2": {},
            "cwm": {},
            "diffllama": {},
            "doge": {},
            "ernie4_5": {},
            "ernie4_5_moe": {"moe_num_experts": 4, "moe_k": 2, "moe_intermediate_size": 16},
            "exaone4": {},
            "gemma": {},
            "gemma2": {},
            "gemma3_text": {},
            "glm": _PARTLY_ROTARY,
            "glm4": _PARTLY_ROTARY,
            "glm4_moe": _ROUTED,
            "gpt_oss": {"num_local_experts": 4},
            "granite": {},
            "granitemoe": {"num_local_experts": 4},
            # Of its own 1e-8 the library that writes the graph makes 0, so that a vector of zeros becomes NaN.
            "helium": {"rms_norm_eps": 1e-6},
            "hunyuan_v1_dense": {},
            "llama": {},
            "ministral": {},
            "mistral": {},
            "mixtral": {"num_local_experts": 4},
            "nemotron": {},
            "olmo": {},
            "olmo2": {},
            "olmo3": {},
            "olmoe": {"num_experts": 4, "num_experts_per_tok": 2},
            "phi": {"num_key_value_heads": 4},
            "phi3": {},
            "phimoe": {"num_local_experts": 4},
            "qwen2": {},
            "qwen2_moe": _EXPERTS | {"shared_expert_intermediate_size": 16},
            "qwen3": {},
            "qwen3_moe": _EXPERTS,
            "seed_oss": {},
            "smollm3": {},
            "stablelm": {},
            "starcoder2": {},
            "vaultgemma": {},
            "llama, text classifier": {},
        },
    ),
    **families(TEXT | _LATENT | _ROUTED, {"deepseek_v3": {"n_group": 2, "topk_group": 1}}),
    **families(
        TEXT,
        {
            "biogpt": {},
            "falcon": {},
            "gpt_neox": {},
            "gpt_neox_japanese": {},
            "modernbert-decoder": {"global_attn_every_n_layers": 2, "local_attention": 16},
            "opt": {"ffn_dim": 48, "word_embed_proj_dim": 32},
            "persimmon": {},
        },
    ),
    **families(
        GPT2,
        {
            "bloom": {"hidden_size": 32},
            "codegen": {"rotary_dim": 4, "n_ctx": 64},
            "ctrl": {"dff": 48},
            "gpt2": {},
            "gpt_bigcode": {},
            "gptj": {"rotary_dim": 4},
            "openai-gpt": {},
            "gpt2, text classifier": {},
        },
    ),
    "gpt_neo": Family("gpt_neo", _GPT_NEO),
    "mamba": Family("mamba", SPECIAL | {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4}),
    "mpt": Family("mpt", _MPT),
    "xglm": Family("xglm", _XGLM),
}
