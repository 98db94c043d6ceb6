"""What is tried of each family besides its plain small network: variants by family and name, as plain data."""

from tests.export.small.family import Config

_ODD: Config = {"hidden_size": 30, "num_attention_heads": 3, "num_hidden_layers": 3, "intermediate_size": 50}
_ODD_ROTARY: Config = _ODD | {"hidden_size": 36, "num_attention_heads": 6}  # heads of an even width
_ODD_GROUPED: Config = _ODD_ROTARY | {"num_key_value_heads": 3, "head_dim": 10}
_ODD_D_MODEL: Config = {"d_model": 30, "encoder_attention_heads": 3, "decoder_attention_heads": 5}
_LONG: Config = {"max_position_embeddings": 200}  # beyond every window here, more than the short texts of verification
_THETA: Config = {"rope_theta": 10_000.0}
_FACTORS: Config = {"short_factor": [1.0, 1.1, 1.2, 1.3], "long_factor": [1.0, 2.0, 3.0, 4.0]}
_LONGROPE: Config = _LONG | {
    "original_max_position_embeddings": 32,
    "rope_parameters": {"rope_type": "longrope", "original_max_position_embeddings": 32, "factor": 6.25}
    | _THETA
    | _FACTORS,
}
_SPARSE: Config = {"attention_type": "block_sparse", "block_size": 16, "num_random_blocks": 2}
_FOUR_LAYERS: Config = {"num_hidden_layers": 4}
_SHIFTED: Config = {"depths": [2, 2]}


def _scaled(kind: str, **more: float) -> Config:
    return _LONG | {"rope_parameters": {"rope_type": kind, "factor": 4.0} | _THETA | more}


_LINEAR, _DYNAMIC = _scaled("linear"), _scaled("dynamic")
_YARN = _scaled("yarn", original_max_position_embeddings=50)
_LLAMA3 = _scaled("llama3", original_max_position_embeddings=50, low_freq_factor=1.0, high_freq_factor=4.0)

# Shared by decoders whose query heads may outnumber their key and value heads.
_GROUPED: dict[str, Config] = {
    "one key head": {"num_key_value_heads": 1},
    "a key head each": {"num_key_value_heads": 4},
    "odd sizes": _ODD_GROUPED,
}
_WINDOW: Config = _LONG | {"sliding_window": 8}
_MIXED_WINDOW: Config = _WINDOW | {"num_hidden_layers": 2, "layer_types": ["sliding_attention", "full_attention"]}

_TEXTS: dict[str, dict[str, Config]] = {
    "albert": {
        "two groups": {"num_hidden_layers": 4, "num_hidden_groups": 2},
        "two layers a group": {"inner_group_num": 2},
        "odd sizes": _ODD,
    },
    "bert": {
        "odd sizes": _ODD,
        "decoder": {"is_decoder": True},
        "gelu_new, one type": {"hidden_act": "gelu_new", "type_vocab_size": 1},
        "long": _LONG,
    },
    "big_bird": {
        "block_sparse": _SPARSE,
        "block_sparse, longer than its blocks": _SPARSE | {"max_position_embeddings": 512},
        "block_sparse, odd sizes": _SPARSE | _ODD,
    },
    "deberta": {
        "no relative attention": {"relative_attention": False},
        "c2p alone": {"pos_att_type": ["c2p"]},
        "p2c alone": {"pos_att_type": ["p2c"]},
        "talking heads": {"talking_head": True},
    },
    "deberta-v2": {
        "buckets, shared keys": {"position_buckets": 8, "share_att_key": True, "norm_rel_ebd": "layer_norm"} | _LONG,
        "convolution": {"conv_kernel_size": 3, "conv_act": "gelu"},
        "no relative attention": {"relative_attention": False},
        "c2p alone": {"pos_att_type": ["c2p"]},
        "odd sizes": _ODD,
    },
    "distilbert": {
        "sinusoidal positions": {"sinusoidal_pos_embds": True},
        "odd sizes": {"dim": 30, "n_heads": 3, "n_layers": 3, "hidden_dim": 50},
    },
    "electra": {"narrow embeddings": {"embedding_size": 16}, "odd sizes": _ODD},
    "ernie": {"task types": {"use_task_id": True, "task_type_vocab_size": 3}},
    "esm": {
        "absolute positions": {"position_embedding_type": "absolute", "emb_layer_norm_before": True},
        "token dropout": {"token_dropout": True},
        "odd sizes": _ODD_ROTARY,
    },
    "eurobert": {**_GROUPED, "linear RoPE": _LINEAR, "yarn RoPE": _YARN, "dynamic RoPE": _DYNAMIC},
    "flaubert": {"norms first": {"pre_norm": True}, "causal": {"causal": True}},
    "luke": {"no entity-aware attention": {"use_entity_aware_attention": False}},
    "mobilebert": {
        "no bottleneck": {"use_bottleneck": False, "intra_bottleneck_size": 32, "true_hidden_size": 32},
        "shared bottleneck": {"key_query_shared_bottleneck": True},
    },
    "modernbert": {
        "windows beyond which texts go": _LONG | _FOUR_LAYERS | {"global_attn_every_n_layers": 3},
        "windows alone": _LONG | {"global_attn_every_n_layers": 5},
        "no windows": {"global_attn_every_n_layers": 1},
        "odd sizes": _ODD_ROTARY,
    },
    "mpnet": {"long": _LONG, "odd sizes": _ODD},
    "nomic_bert": {"odd sizes": _ODD_ROTARY, "dynamic RoPE": _DYNAMIC, "yarn RoPE": _YARN},
    "rembert": {"odd sizes": _ODD},
    "roberta": {"odd sizes": _ODD, "long": {"max_position_embeddings": 202}},
    "roformer": {"rotary values": {"rotary_value": True}, "odd sizes": _ODD_ROTARY},
    "xlm": {"sinusoidal positions": {"sinusoidal_embeddings": True}, "causal": {"causal": True}},
    "xlm-roberta": {"odd sizes": _ODD},
}

_DECODERS: dict[str, dict[str, Config]] = {
    "bloom": {
        "odd heads": {"hidden_size": 30, "n_head": 3},
        "residual after norm": {"apply_residual_connection_post_layernorm": True},
    },
    "cohere": {"normed queries": {"use_qk_norm": True}},
    "cohere2": {"windows": _MIXED_WINDOW},
    "exaone4": {"windows": _MIXED_WINDOW},
    "falcon": {
        "ALiBi": {"alibi": True},
        "new architecture": {"new_decoder_architecture": True, "num_kv_heads": 2},
        "a key head each": {"multi_query": False},
        "in turn": {"parallel_attn": False},
        "linear RoPE": _LINEAR,
        "dynamic RoPE": _DYNAMIC,
    },
    "gemma2": {"windows": _MIXED_WINDOW, "no softcap": {"attn_logit_softcapping": None}},
    "gemma3_text": {
        "windows": _MIXED_WINDOW,
        "bidirectional": {"use_bidirectional_attention": True} | _WINDOW,
    },
    "gpt2": {"scaled by layer": {"scale_attn_by_inverse_layer_idx": True}, "upcast": {"reorder_and_upcast_attn": True}},
    "gpt_bigcode": {"a key head each": {"multi_query": False}},
    "gpt_neo": {"windows beyond which texts go": _LONG | {"window_size": 4}},
    "gpt_neox": {
        "all rotary": {"rotary_pct": 1.0},
        "in turn": {"use_parallel_residual": False},
        "dynamic RoPE": _DYNAMIC | {"rotary_pct": 1.0},
        "odd sizes": _ODD_ROTARY,
    },
    "llama": {
        **_GROUPED,
        "linear RoPE": _LINEAR,
        "dynamic RoPE": _DYNAMIC,
        "yarn RoPE": _YARN,
        "llama3 RoPE": _LLAMA3,
        "longrope RoPE": _LONGROPE,
        "wide heads, biases": {"head_dim": 12, "attention_bias": True, "mlp_bias": True},
    },
    "ministral": {"windows": _MIXED_WINDOW},
    "mistral": {"windows": _WINDOW, "yarn RoPE": _YARN, **_GROUPED},
    "modernbert-decoder": {"windows beyond which texts go": _LONG | _FOUR_LAYERS},
    "mpt": {"no ALiBi": {"attn_config": {"alibi": False}}, "odd heads": {"d_model": 30, "n_heads": 3}},
    "olmo3": {"windows": _MIXED_WINDOW, "yarn RoPE": _YARN},
    "opt": {"norms behind": {"do_layer_norm_before": False}, "narrow embeddings": {"word_embed_proj_dim": 16}},
    "persimmon": {"no normed queries": {"qk_layernorm": False}},
    "phi": {"normed queries": {"qk_layernorm": True}, "linear RoPE": _LINEAR},
    "phi3": {"longrope RoPE": _LONGROPE, "windows": _WINDOW},
    "qwen2": {
        "windows": _WINDOW | {"use_sliding_window": True, "max_window_layers": 1},
        "yarn RoPE": _YARN,
        "dynamic RoPE": _DYNAMIC,
        **_GROUPED,
    },
    "qwen3": {"windows": _MIXED_WINDOW | {"use_sliding_window": True}, "yarn RoPE": _YARN},
    "smollm3": {"rotary in one layer of two": {"no_rope_layers": [1, 0]}},
    "stablelm": {"normed queries": {"qk_layernorm": True}, "parallel": {"use_parallel_residual": True}},
    "starcoder2": {"windows": _WINDOW},
}

_IMAGES: dict[str, dict[str, Config]] = {
    "beit": {
        "relative bias": {"use_absolute_position_embeddings": False, "use_relative_position_bias": True},
        "shared relative bias": {"use_shared_relative_position_bias": True},
        "class token": {"use_mean_pooling": False},
    },
    "clip_vision_model": {"odd sizes": _ODD, "quick_gelu": {"hidden_act": "quick_gelu"}},
    "data2vec-vision": {"relative bias": {"use_relative_position_bias": True}},
    "deit": {"odd sizes": _ODD},
    "dinov2": {"SwiGLU": {"use_swiglu_ffn": True}, "odd sizes": _ODD},
    "dinov3_vit": {"no registers": {"num_register_tokens": 0}, "gated": {"use_gated_mlp": True}},
    "segformer": {"other reductions": {"sr_ratios": [4, 2, 2, 1]}},
    "siglip_vision_model": {"no head": {"vision_use_head": False}, "odd sizes": _ODD},
    "pvt": {"no biases": {"qkv_bias": False}},
    "pvt_v2": {"linear attention": {"linear_attention": True}},
    "sam_vision_model": {
        "odd windows": {"window_size": 3},
        "no relative positions": {"use_rel_pos": False},
        "windows alone": {"global_attn_indexes": []},
        "a window beyond the grid": {"window_size": 7},
    },
    "swin": {
        "shifted windows": _SHIFTED,
        "absolute positions": {"use_absolute_embeddings": True},
        "odd windows": _SHIFTED | {"window_size": 3},
        "odd grids": _SHIFTED | {"image_size": 40, "window_size": 4},
        "a window beyond the grid": _SHIFTED | {"window_size": 9},
        "images that are no squares": _SHIFTED | {"image_size": [48, 32], "window_size": 3},
        "larger images": _SHIFTED | {"image_size": 96, "depths": [2, 2, 2], "num_heads": [2, 4, 4]},
        "no biases": {"qkv_bias": False},
    },
    "swinv2": {
        "shifted windows": _SHIFTED,
        "absolute positions": {"use_absolute_embeddings": True},
        "odd windows": _SHIFTED | {"window_size": 3},
        "odd grids": _SHIFTED | {"image_size": 40, "window_size": 3},
        "a window beyond the grid": _SHIFTED | {"window_size": 9},
        "windows of the pretraining": _SHIFTED | {"pretrained_window_sizes": [3, 2]},
    },
    "vit": {
        "odd sizes": _ODD,
        "no biases": {"qkv_bias": False},
        "odd grid": {"image_size": 35, "patch_size": 7},
        "one channel": {"num_channels": 1},
    },
    "vitdet": {
        "windows": {"window_block_indices": [0], "window_size": 2},
        "odd windows": {"window_block_indices": [0], "window_size": 3},
        "relative positions": {"use_relative_position_embeddings": True},
    },
}

_PAIRS: dict[str, dict[str, Config]] = {
    "bart": {"odd sizes": _ODD_D_MODEL, "scaled embeddings": {"scale_embedding": True}},
    "bigbird_pegasus": {
        "block_sparse": _SPARSE,
        "block_sparse, longer than its blocks": _SPARSE | {"max_position_embeddings": 512},
    },
    "longt5": {"transient-global": {"encoder_attention_type": "transient-global"}},
    "t5, encoder": {
        "few buckets": {"relative_attention_num_buckets": 8, "relative_attention_max_distance": 16},
        "gated": {"feed_forward_proj": "gated-gelu"},
        "odd sizes": {"d_model": 30, "num_heads": 3, "d_kv": 7, "num_layers": 3},
    },
    "whisper, encoder": {"odd sizes": _ODD_D_MODEL},
}

_SOUNDS: dict[str, dict[str, Config]] = {
    "hubert": {"norms first": {"do_stable_layer_norm": True, "feat_extract_norm": "layer"}},
    "wav2vec2": {
        "norms first": {"do_stable_layer_norm": True, "feat_extract_norm": "layer", "conv_bias": True},
        "adapter": {"add_adapter": True, "output_hidden_size": 32},
        "odd sizes": _ODD,
    },
    "wav2vec2-bert": {
        "relative positions": {"position_embeddings_type": "relative"},
        "rotary positions": {"position_embeddings_type": "rotary"},
        "no positions": {"position_embeddings_type": None},
    },
    "wav2vec2-conformer": {
        "rotary positions": {"position_embeddings_type": "rotary"},
        "no positions": {"position_embeddings_type": None},
    },
}

VARIANTS: dict[str, dict[str, Config]] = {**_TEXTS, **_DECODERS, **_IMAGES, **_PAIRS, **_SOUNDS}

# What people bring most, as we take it: nothing that counts it is at hand.
MOST_USED = frozenset(
    [
        *(
            "albert",
            "bert",
            "big_bird",
            "camembert",
            "convbert",
            "data2vec-text",
            "deberta",
            "deberta-v2",
            "distilbert",
        ),
        *("dpr", "electra", "ernie", "esm", "eurobert", "flaubert", "funnel", "gte", "jina_embeddings_v3", "layoutlm"),
        *("layoutlmv3", "longformer", "luke", "megatron-bert", "mobilebert", "modernbert", "mpnet", "nomic_bert"),
        *("rembert", "roberta", "roformer", "squeezebert", "tapas", "xlm", "xlm-roberta", "xlm-roberta-xl"),
        *("t5, encoder", "clip, text", "siglip, text"),
        *("beit", "clip, vision", "deit", "detr", "dinov2", "dinov2_with_registers", "dinov3_vit", "sam_vision_model"),
        *("segformer", "siglip, vision", "siglip2_vision_model", "swin", "swinv2", "videomae", "vit", "vit_mae"),
        *("audio-spectrogram-transformer", "hubert", "wav2vec2", "wav2vec2-bert", "wavlm", "whisper, encoder"),
    ]
)
