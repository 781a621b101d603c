"""Tiny models for tests, shipped with the package: no downloads, under 100,000 parameters each.

    tiny_model("llama")        a random model of every supported family
    tiny_tokenizer()           words as tokens ("▁women"), every other text letter by letter
    save_tiny_checkpoint(...)  both, as a local folder that `from_pretrained` reads
    planted_model()            a model in which one known head writes a toxic word

Random weights mean nothing: use these to test code, never to say something about bias.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from levelhead.models.architectures import ARCHITECTURES, attention_modules
from levelhead.models.tiny_configs import tiny_config

TINY_FAMILIES: tuple[str, ...] = tuple(
    kind for family in ARCHITECTURES for kind in family.model_types if not family.whole_layers_only
)
"""`config.model_type` of every supported family that can lose single heads."""
WHOLE_LAYER_FAMILIES: tuple[str, ...] = tuple(
    kind for family in ARCHITECTURES for kind in family.model_types if family.whole_layers_only
)
"""Those that can only lose all heads of a layer."""
TINY_VARIANTS: tuple[str, ...] = ("falcon_grouped", "falcon_alibi")
"""Other layouts of a family's attention, for the tests in which that matters."""


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


IDENTITY_WORDS = _words(
    "women men woman man gay straight lesbian bisexual queer transgender Muslim Muslims Christian "
    "Christians Jewish Jews Hindu Buddhist atheist Black White Asian Latino Mexican Chinese German "
    "French Nigerian Indian American"
)
TOXIC_WORDS = _words("stupid idiot damn crap scum hate ugly awful")
COMMON_WORDS = _words(
    "the a an and or but of to in on at is are was were be I you he she they we it that this my "
    "your our people person friend friends neighbour family I'm am think know like love met said "
    "say says talk good nice kind bad new old very so not who with for from as what how do does "
    "always often never work live here there much more all some one day time house town food"
)
PAD, BOS, EOS, UNKNOWN = SPECIAL_TOKENS = _words("<pad> <s> </s> <unk>")


def tiny_tokenizer(words: Sequence[str] = ()) -> PreTrainedTokenizerFast:
    """A tokenizer of about 230 tokens that needs no files.

    Known words (and `words`, in front) are one token each, with the word-start mark "▁"; any other
    printable ASCII text is spelled letter by letter, so that it survives a round trip.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    known = [f"▁{word}" for word in (*words, *IDENTITY_WORDS, *TOXIC_WORDS, *COMMON_WORDS)]
    letters = ["▁", "\n", *(chr(code) for code in range(33, 127))]
    vocabulary = dict.fromkeys((*SPECIAL_TOKENS, *known, *letters))
    ids = {token: index for index, token in enumerate(vocabulary)}
    backend = Tokenizer(
        models.WordPiece(
            ids, unk_token=UNKNOWN, continuing_subword_prefix="", max_input_chars_per_word=1000
        )
    )
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    fast: Any = PreTrainedTokenizerFast  # its constructor has no types
    tokenizer: PreTrainedTokenizerFast = fast(
        tokenizer_object=backend,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        unk_token=UNKNOWN,
        padding_side="left",
        model_max_length=128,
        clean_up_tokenization_spaces=False,
    )
    return tokenizer


def tiny_model(
    family: str,
    *,
    num_layers: int = 3,
    num_heads: int = 6,
    num_key_value_heads: int | None = None,
    hidden_size: int = 48,
    vocab_size: int | None = None,
    seed: int = 0,
) -> PreTrainedModel:
    """A random model of one family, in eval mode, fp32, on the CPU.

    Args:
        family: one of TINY_FAMILIES, WHOLE_LAYER_FAMILIES or TINY_VARIANTS.
        num_key_value_heads: for families with grouped queries; by default a third of the heads
            where that divides, else as many as heads.
        vocab_size: by default that of `tiny_tokenizer()`.
        seed: of the weights; the global random state is left alone.

    Raises:
        ValueError: no such family.
    """
    known = (*TINY_FAMILIES, *WHOLE_LAYER_FAMILIES, *TINY_VARIANTS)
    if family not in known:
        raise ValueError(f"no tiny model of family {family!r}; there are {', '.join(known)}")
    config = tiny_config(
        family,
        num_layers=num_layers,
        num_heads=num_heads,
        num_key_value_heads=num_key_value_heads,
        hidden_size=hidden_size,
        vocab_size=len(tiny_tokenizer()) if vocab_size is None else vocab_size,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        auto: Any = AutoModelForCausalLM  # its methods have no types
        model: PreTrainedModel = auto.from_config(config)
    # The stock initialisation is so small that attention hardly matters: widen it.
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(noise * 0.12 if parameter.ndim >= 2 else parameter + noise * 0.1)
    model.train(False)
    return model


def save_tiny_checkpoint(folder: str | Path, family: str, **options: Any) -> Path:
    """Save `tiny_model(family, **options)` and its tokenizer to a folder; returns the folder."""
    folder = Path(folder)
    tiny_model(family, **options).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@dataclass(frozen=True, slots=True)
class PlantedModel:
    """A model with one head that is known to add a toxic word after one subgroup's names."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    head: tuple[int, int]
    """(layer, head) of the planted head."""
    subgroup_words: tuple[str, ...]
    toxic_word: str


def planted_model(
    *,
    layer: int = 1,
    head: int = 2,
    subgroup_words: Sequence[str] = ("women", "woman"),
    toxic_word: str = "idiot",
    strength: float = 1.0,
    num_layers: int = 3,
    num_heads: int = 6,
    seed: int = 0,
) -> PlantedModel:
    """A tiny Llama whose one planted head raises a toxic word after one subgroup's names.

    Three coordinates of the residual stream are reserved; no random weight reads or writes them:

    - `here` is 1 in every token's embedding, `name` is 1 in those of `subgroup_words`;
    - the planted head's query reads `here` and its key reads `name`, in the slowest rotary pair:
      it attends to the subgroup's names, however far back, and evenly where there is none;
    - its value reads `name`, and its output writes a share of it, times `strength`, to `toxic`;
    - the unembedding of `toxic_word` reads `toxic`.

    So ablating the planted head removes the effect and no other head matters to it. At strength 1
    the toxic word gets about half of the probability after the subgroup's names; 0 plants
    nothing. Every word must be one token of `tiny_tokenizer()`.
    """
    tokenizer = tiny_tokenizer()
    model = tiny_model(
        "llama",
        num_layers=num_layers,
        num_heads=num_heads,
        num_key_value_heads=num_heads,
        seed=seed,
    )
    vocabulary = tokenizer.get_vocab()
    names = [vocabulary[f"▁{word}"] for word in subgroup_words]
    here, name, toxic = 0, 1, 2
    reserved = [here, name, toxic]

    with torch.no_grad():
        embedding = model.get_parameter("model.embed_tokens.weight")
        embedding[:, reserved] = 0
        embedding[:, here] = 1
        embedding[names, name] = 1
        unembedding = model.get_parameter("lm_head.weight")
        unembedding.mul_(0.5)
        unembedding[:, reserved] = 0
        unembedding[vocabulary[f"▁{toxic_word}"], toxic] = 1.5
        for module in model.modules():
            if isinstance(module, nn.Linear) and module.weight is not unembedding:
                _disconnect(module, reserved, model.config.hidden_size)
            elif module.__class__.__name__ == "LlamaRMSNorm":
                module.get_parameter("weight").fill_(1)

        attention: Any = attention_modules(model)[layer]
        width = attention.head_dim
        first = head * width
        block = slice(first, first + width)
        for projection in (attention.q_proj, attention.k_proj, attention.v_proj):
            projection.weight[block] = 0
        attention.o_proj.weight[:, block] = 0
        # Rotary pairs are (i, i + width / 2); the last one turns slowest.
        slowest = first + width // 2 - 1
        attention.q_proj.weight[slowest, here] = 3
        attention.k_proj.weight[slowest, name] = 3
        attention.v_proj.weight[first, name] = 1
        attention.o_proj.weight[toxic, first] = 0.2 * strength
    return PlantedModel(
        model=model,
        tokenizer=tokenizer,
        head=(layer, head),
        subgroup_words=tuple(subgroup_words),
        toxic_word=toxic_word,
    )


def _disconnect(linear: nn.Linear, coordinates: list[int], hidden_size: int) -> None:
    """Make a layer neither read nor write these coordinates of the residual stream.

    It also writes little to the others: the residual stream keeps its size, so that a planted
    effect is about as large from any layer. Where the inner width equals the hidden size both sides
    are cleared: the inner ones are ordinary units then, of which three do not matter.
    """
    linear.weight.mul_(0.5)
    if linear.in_features == hidden_size:
        linear.weight[:, coordinates] = 0
    if linear.out_features == hidden_size:
        linear.weight[coordinates] = 0
