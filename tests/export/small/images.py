"""Encoders of images and video, and classifiers on them."""

from tests.export.small.family import CLIP, IMAGE, SIZES, Family, families

_MAE = {"decoder_hidden_size": 32, "decoder_num_attention_heads": 4, "decoder_intermediate_size": 48}
_DPT = {"backbone_out_indices": [0, 1], "neck_hidden_sizes": [16, 32], "fusion_hidden_size": 16}
_SWIN = {"image_size": 32, "patch_size": 4, "embed_dim": 16, "depths": [1, 1], "num_heads": [2, 4], "window_size": 4}
_SAM = {"global_attn_indexes": [1], "window_size": 2, "output_channels": 16}
_PYRAMID = {"image_size": 64, "hidden_sizes": [8, 16, 20, 32], "num_attention_heads": [1, 2, 5, 8]}
_PYRAMID |= {"depths": [1, 1, 1, 1]}
_RESNET = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]}
_STACK = {"layers": 1, "attention_heads": 4, "ffn_dim": 48}
_DETECTOR = {
    "d_model": 32,
    **{f"{stack}_{what}": size for stack in ("encoder", "decoder") for what, size in _STACK.items()},
    "num_queries": 6,
    "image_size": 64,
}
_DETR = _DETECTOR | {
    "backbone": None,
    "use_timm_backbone": False,
    "use_pretrained_backbone": False,
    "backbone_config": _RESNET | {"model_type": "resnet", "out_features": ["stage2"]},
}
_RT_DETR = _DETECTOR | {
    "encoder_hidden_dim": 32,
    "num_denoising": 0,
    "encoder_in_channels": [16, 16, 16],
    "decoder_in_channels": [32, 32, 32],
    "backbone_config": {
        "model_type": "rt_detr_resnet",
        "embedding_size": 8,
        "hidden_sizes": [8, 16, 16, 16],
        "depths": [1, 1, 1, 1],
        "out_features": ["stage2", "stage3", "stage4"],
    },
}
_PATCHES_AS_PAIRS = {"image_size": [32, 32], "patch_size": [8, 8]}

IMAGES: dict[str, Family] = {
    **families(
        IMAGE,
        {
            "aimv2_vision_model": {"use_head": False},
            "beit": {"use_absolute_position_embeddings": True},
            "blip_vision_model": {},
            "clip_vision_model": {},
            "data2vec-vision": {},
            "deit": {},
            "dinov2": {},
            "dinov2_with_registers": {},
            "dinov3_vit": {"num_register_tokens": 4},
            "dpt": _DPT,
            "idefics3_vision": {},
            "ijepa": {},
            "internvl_vision": _PATCHES_AS_PAIRS,
            "mlcd_vision_model": {},
            "pixio": {},
            "pixtral": {"head_dim": 8},
            "sam_vision_model": _SAM,
            "sam_hq_vision_model": _SAM,
            "siglip2_vision_model": {"num_patches": 16},
            "siglip_vision_model": {},
            "smolvlm_vision": {},
            "vit": {},
            "vit_mae": _MAE,
            "vit_msn": {},
            "vitdet": {},
            "yolos": {"image_size": [32, 32], "num_detection_tokens": 5},
            "beit, image classifier": {},
            "deit, image classifier": {},
            "dinov2_with_registers, image classifier": {},
        },
    ),
    **families(
        CLIP,
        {
            "altclip, vision": {},
            "chinese_clip, vision": {},
            "clip, vision": {},
            "metaclip_2, vision": {},
            "owlvit, vision": {},
            "siglip, vision": {},
            "clip, image classifier": {},
            "siglip, image classifier": {},
        },
    ),
    **families(IMAGE | {"num_frames": 2}, {"timesformer": {}, "videomae": {}, "vivit": {"tubelet_size": [2, 8, 8]}}),
    "vjepa2": Family("vjepa2", SIZES | {"crop_size": 32, "frames_per_clip": 4, "patch_size": 8}),
    **families(
        _SWIN,
        {"donut-swin": {"depths": [2, 2]}, "swin": {}, "swinv2": {}, "swin, image classifier": {"depths": [2, 2]}},
    ),
    **families({}, {"cvt": {"image_size": 64}, "hiera": {}, "levit": {}}),
    **families(_PYRAMID, {"pvt": {}, "pvt_v2": {}, "segformer": {}}),
    **families(_DETR, {"conditional_detr": {}, "detr": {}, "table-transformer": {}}),
    "resnet": Family("resnet", _RESNET | {"image_size": 32}),
    "rt_detr": Family("rt_detr", _RT_DETR),
}
