"""Tiny configs of every supported family, for the random models of levelhead.testing."""

from __future__ import annotations

from typing import Any

import transformers as hf


def tiny_config(
    family: str,
    *,
    num_layers: int,
    num_heads: int,
    num_key_value_heads: int | None,
    hidden_size: int,
    vocab_size: int,
) -> Any:
    """A config of one family, or variant of one, in which its special cases are present.

    Grouped queries, sliding windows, norms per head, and a head width other than hidden size /
    heads, wherever the family has them: these are the cases that break.

    Raises:
        ValueError: no such family.
    """
    special: dict[str, Any] = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    kv_heads = num_key_value_heads
    if kv_heads is None:
        kv_heads = num_heads // 3 if num_heads % 3 == 0 else num_heads
    common: dict[str, Any] = {
        "vocab_size": vocab_size,
        "num_hidden_layers": num_layers,
        "num_attention_heads": num_heads,
        "hidden_size": hidden_size,
        "max_position_embeddings": 128,
        **special,
    }
    gated_mlp = {**common, "intermediate_size": 2 * hidden_size}
    grouped = {**gated_mlp, "num_key_value_heads": kv_heads}
    wide = {**grouped, "head_dim": 16}  # heads x head_dim is not the hidden size
    sliding = ["sliding_attention" if i % 2 == 0 else "full_attention" for i in range(num_layers)]
    experts: dict[str, Any] = {"num_experts_per_tok": 2, "intermediate_size": hidden_size // 2}
    falcon = {
        **common,
        "ffn_hidden_size": 2 * hidden_size,
        "new_decoder_architecture": False,
        "multi_query": family == "falcon",
        "alibi": family == "falcon_alibi",
        "bias": family == "falcon_alibi",
    }
    gemma3 = {**wide, "sliding_window": 6, "layer_types": sliding, "query_pre_attn_scalar": 16}

    match family:
        case "gpt2":
            return hf.GPT2Config(**common, n_inner=2 * hidden_size)
        case "gpt_neo":
            kinds = [["global" if i % 2 == 0 else "local" for i in range(num_layers)], 1]
            return hf.GPTNeoConfig(
                vocab_size=vocab_size,
                num_layers=num_layers,
                num_heads=num_heads,
                hidden_size=hidden_size,
                intermediate_size=2 * hidden_size,
                attention_types=[kinds],
                window_size=4,
                max_position_embeddings=128,
                **special,
            )
        case "gptj":
            return hf.GPTJConfig(**common, n_inner=2 * hidden_size, rotary_dim=4)
        case "llama":
            return hf.LlamaConfig(**grouped)
        case "mistral":
            return hf.MistralConfig(**grouped, sliding_window=6)
        case "qwen2":
            return hf.Qwen2Config(**grouped)
        case "qwen3":
            return hf.Qwen3Config(**wide)
        case "gemma2":
            return hf.Gemma2Config(**wide, sliding_window=6, query_pre_attn_scalar=16)
        case "gemma3_text":
            return hf.Gemma3TextConfig(**gemma3)
        case "gemma3":
            vision = {
                "hidden_size": 8,
                "intermediate_size": 8,
                "num_hidden_layers": 1,
                "num_attention_heads": 1,
                "image_size": 8,
                "patch_size": 4,
            }
            return hf.Gemma3Config(
                text_config=gemma3, vision_config=vision, mm_tokens_per_image=4, **special
            )
        case "gpt_neox":
            return hf.GPTNeoXConfig(**gated_mlp)
        case "opt":
            return hf.OPTConfig(**common, ffn_dim=2 * hidden_size, word_embed_proj_dim=hidden_size)
        case "phi3":
            return hf.Phi3Config(**grouped, original_max_position_embeddings=128)
        case "mixtral":
            return hf.MixtralConfig(**{**grouped, **experts}, num_local_experts=3)
        case "qwen3_moe":
            small = {"num_experts": 3, "moe_intermediate_size": hidden_size // 2}
            return hf.Qwen3MoeConfig(**{**wide, **experts, **small})
        case "gpt_oss":
            return hf.GptOssConfig(
                **{**wide, **experts},
                num_local_experts=3,
                sliding_window=6,
                layer_types=sliding,
                rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
            )
        case "cohere":
            return hf.CohereConfig(**grouped, use_qk_norm=True)
        case "cohere2":
            return hf.Cohere2Config(**wide, sliding_window=6, layer_types=sliding)
        case "starcoder2":
            return hf.Starcoder2Config(**grouped, sliding_window=6)
        case "stablelm":
            return hf.StableLmConfig(**grouped, qk_layernorm=True, use_qkv_bias=True)
        case "granite":
            return hf.GraniteConfig(**grouped)
        case "olmo":
            return hf.OlmoConfig(**grouped, clip_qkv=0.5)
        case "olmo2":
            return hf.Olmo2Config(**grouped)
        case "bloom":
            return hf.BloomConfig(**common)
        case "falcon" | "falcon_alibi":
            return hf.FalconConfig(**falcon)
        case "falcon_grouped":
            grouping = {"new_decoder_architecture": True, "num_kv_heads": kv_heads}
            return hf.FalconConfig(**{**falcon, **grouping})
    raise ValueError(f"no tiny config of family {family!r}")
