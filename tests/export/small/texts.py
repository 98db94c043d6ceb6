"""Encoders of texts, and classifiers on them."""

from tests.export.small.family import CLIP, DISTILBERT, ROBERTA, SPECIAL, TEXT, Family, families

_OLD = {"emb_dim": 32, "n_layers": 2, "n_heads": 4, "vocab_size": 256}
_DEBERTA = {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]}
_LOCAL = {"global_attn_every_n_layers": 2, "local_attention": 16}
_FUNNEL = SPECIAL | {"d_model": 32, "block_sizes": [1, 1], "n_head": 4, "d_head": 8, "d_inner": 48}
_XLNET = {"d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 48, "vocab_size": 256}

TEXTS: dict[str, Family] = {
    **families(
        TEXT,
        {
            "albert": {"embedding_size": 16},
            "bert": {},
            "bert-generation": {},
            "big_bird": {"attention_type": "original_full"},
            "bros": {},
            "canine": {},
            "convbert": {},
            "deberta": _DEBERTA,
            "deberta-v2": _DEBERTA,
            "dpr": {},
            "electra": {"embedding_size": 32},
            "ernie": {},
            "esm": {"pad_token_id": 1, "mask_token_id": 2, "position_embedding_type": "rotary"},
            "esmc": {},
            "eurobert": {"num_key_value_heads": 2},
            "fnet": {},
            "gte": {},
            "jina_embeddings_v3": {},
            "layoutlm": {},
            "layoutlmv3": {"visual_embed": False, "coordinate_size": 4, "shape_size": 8},
            "lilt": {"hidden_size": 48},
            "luke": {},
            "markuplm": {},
            "megatron-bert": {},
            "mobilebert": {"embedding_size": 32, "intra_bottleneck_size": 16, "true_hidden_size": 16},
            "modernbert": _LOCAL,
            "mpnet": {},
            "nomic_bert": {},
            "nystromformer": {},
            "rembert": {"input_embedding_size": 16},
            "roberta-prelayernorm": {},
            "roc_bert": {},
            "roformer": {"embedding_size": 32},
            "splinter": {},
            "squeezebert": {"embedding_size": 32},
            "tapas": {},
            "ultrabert": {},
            "visual_bert": {},
            "xlm-roberta-xl": {},
            "yoso": {},
            "modernbert, text classifier": _LOCAL,
        },
    ),
    **families(
        ROBERTA,
        {
            "camembert": {},
            "data2vec-text": {},
            "ibert": {},
            "longformer": {"attention_window": 8},
            "roberta": {},
            "xlm-roberta": {},
            "xmod": {"languages": ["en_XX"], "default_language": "en_XX"},
            "roberta, text classifier": {},
        },
    ),
    **families(DISTILBERT, {"distilbert": {}, "distilbert, text classifier": {}}),
    **families(_OLD, {"flaubert": {}, "xlm": {}}),
    "funnel": Family("funnel", _FUNNEL),
    "xlnet": Family("xlnet", _XLNET),
    **families(TEXT | {"projection_dim": 16}, {"clip_text_model": {}, "siglip_text_model": {}}),
    **families(
        CLIP,
        {
            "altclip, text": {},
            "chinese_clip, text": {},
            "clip, text": {},
            "metaclip_2, text": {},
            "owlvit, text": {},
            "siglip, text": {},
        },
    ),
}
