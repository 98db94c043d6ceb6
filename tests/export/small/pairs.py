"""Encoder-decoders and their encoders, and encoders of sound."""

from tests.export.small.family import IMAGE, PAIR, SIZES, SPECIAL, SPEECH, Config, Family, families

_STACKS = ("encoder", "decoder")
_T5 = SPECIAL | {"d_model": 32, "d_kv": 8, "num_layers": 2, "num_heads": 4, "d_ff": 48, "decoder_start_token_id": 0}
_LED = {"attention_window": 8, **{f"max_{stack}_position_embeddings": 64 for stack in _STACKS}}
_PROPHET: Config = {
    "hidden_size": 32,
    **{f"{stack}_ffn_dim": 48 for stack in _STACKS},
    **{f"num_{stack}_layers": 2 for stack in _STACKS},
    **{f"num_{stack}_attention_heads": 4 for stack in _STACKS},
}
_MOONSHINE: Config = {
    "hidden_size": 32,
    "intermediate_size": 48,
    **{f"{stack}_num_hidden_layers": 2 for stack in _STACKS},
    **{f"{stack}_num_attention_heads": 4 for stack in _STACKS},
    **{f"{stack}_num_key_value_heads": 4 for stack in _STACKS},
}
_WAVES = SIZES | {
    "vocab_size": 32,
    "conv_dim": [16, 16],
    "conv_stride": [4, 4],
    "conv_kernel": [8, 8],
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
}

PAIRS: dict[str, Family] = {
    **families(
        PAIR,
        {
            "bart": {},
            "bart, encoder": {},
            "bigbird_pegasus": {"attention_type": "original_full"},
            "blenderbot": {},
            "blenderbot-small": {},
            "led": _LED,
            "m2m_100": {},
            "marian": {"scale_embedding": True},
            "mbart": {},
            "pegasus": {},
            "plbart": {},
            "bart, text classifier": {},
        },
    ),
    **families(
        _T5,
        {
            "longt5": {},
            "mt5": {},
            "switch_transformers": {"num_experts": 4},
            "t5": {},
            "t5, encoder": {},
            "umt5": {},
        },
    ),
    "prophetnet": Family("prophetnet", SPECIAL | _PROPHET),
}

SOUNDS: dict[str, Family] = {
    **families(SPEECH, {"qwen2_audio_encoder": {}, "whisper": {}, "whisper, encoder": {}}),
    "moonshine": Family("moonshine", SPECIAL | _MOONSHINE),
    "speech_to_text": Family("speech_to_text", SPEECH | {"input_feat_per_channel": 8, "max_source_positions": 80}),
    **families(
        _WAVES,
        {
            "data2vec-audio": {"conv_pos_kernel_size": 3, "num_conv_pos_embeddings": 2},
            "hubert": {},
            "sew": {"squeeze_factor": 2},
            "sew-d": {"squeeze_factor": 2},
            "unispeech": {},
            "unispeech-sat": {},
            "wav2vec2": {},
            "wav2vec2-conformer": {},
            "wavlm": {},
        },
    ),
    **families(IMAGE, {"audio-spectrogram-transformer": {"num_mel_bins": 16, "max_length": 32}}),
    "wav2vec2-bert": Family("wav2vec2-bert", SIZES | {"feature_projection_input_dim": 16}),
}
