"""Load the model to be pruned (or one that was), ready for scoring, with its tokenizer.

From the hub or a local folder; weights from safetensors, from pickles only within
`permissions.pickles_allowed`. (A GGUF file is converted to such a folder first:
levelhead.data.gguf_files.) Everything that can be wrong is looked for before the weights are read,
and becomes a ModelError. Knows nothing of the embedded model: it is a folder like any other.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils.hub import cached_file, extract_commit_hash

from levelhead.errors import ConfigError, ModelError
from levelhead.models.adapter import ADAPTER
from levelhead.models.architectures import architecture_named, architecture_of
from levelhead.models.checkpoint import register
from levelhead.models.checksums import verify_folder
from levelhead.models.identity import fingerprint
from levelhead.models.load_failures import (
    failure_reported,
    first_line,
    missing_tensors,
    no_such_folder,
)
from levelhead.models.quantised import forget_packing
from levelhead.models.removed_heads import removed_heads
from levelhead.network import is_offline
from levelhead.weight_files import Locate, check_config, check_weights, in_folder, no_conversion

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
OUTPUTS = {"return_dict": True, "output_attentions": False, "output_hidden_states": False}
"""Fields of a config that say what a forward pass returns, as levelhead reads it."""
DEVICES = ("auto", "cpu", "cuda", "mps")


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model in eval mode without weight gradients, and what is known about where it is from."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase | None
    name: str
    """As the user gave it."""
    revision: str | None
    """The commit on the hub where it is known, else as the user gave it."""
    fingerprint: str


def load_base(
    name_or_path: str | Path,
    *,
    revision: str | None = None,
    dtype: str | torch.dtype = "auto",
    device: str = "auto",
    trust_remote_code: bool = False,
    need_tokenizer: bool = True,
) -> LoadedModel:
    """Load a causal language model of a supported family.

    Args:
        name_or_path: a name on the hub, or a local folder (of a pruned model, too).
        revision: branch, tag or commit on the hub.
        dtype: "auto" (float32 on the CPU, elsewhere as saved), "saved", or a key of DTYPES.
        device: "auto" takes cuda, then mps, then the CPU.
        trust_remote_code: run code that the model brings (`auto_map` in its config.json). Without
            it such a model loads with the code of transformers, or, where that has none, not.
        need_tokenizer: False gives `tokenizer=None` where there is none, instead of an error.

    Raises:
        UnsupportedArchitectureError: the family has no adapter; found before weights are read.
        ModelError: no such model, no network, no safetensors, a config that names code or files
            elsewhere, no tokenizer, or NaN outputs.
        CheckpointError: a pruned model of a newer format, or not as it was saved.
        ConfigError: an unknown dtype or device, or a device that this machine lacks.
    """
    name = str(name_or_path)
    target = resolve_device(device)
    weights_dtype = _resolve_dtype(dtype, target)
    source = _source(name, revision, trust_remote_code)
    locate, config = _checked(name, source)
    if "revision" not in source:
        verify_folder(Path(source["pretrained_model_name_or_path"]))
    tokenizer = _load_tokenizer(name, source, need_tokenizer)
    if tokenizer is not None and need_tokenizer:
        check_tokens(name, tokenizer, config)
    auto_model: Any = AutoModelForCausalLM  # transformers' auto classes have no types

    options: dict[str, Any] = {"dtype": weights_dtype}
    if target.type != "cpu":
        options["device_map"] = {"": target}
    with failure_reported(name), no_conversion():
        options["use_safetensors"] = check_weights(name, locate, ModelError)
        model, report = auto_model.from_pretrained(**source, output_loading_info=True, **options)
    if lacking := missing_tensors(report):
        raise ModelError(f"{name} {lacking}")
    forget_packing(model)
    _plain_outputs(model)
    model.requires_grad_(False).eval()
    check_finite(model, name)
    return LoadedModel(
        model=model,
        tokenizer=tokenizer,
        name=name,
        revision=_commit(source) or revision,
        fingerprint=fingerprint(model),
    )


def check_base(name_or_path: str | Path, revision: str | None = None) -> None:
    """Whether `load_base` would find a model that it can load, and its tokenizer.

    Weights are neither read nor fetched.

    Raises:
        UnsupportedArchitectureError, ModelError, CheckpointError: as `load_base`.
    """
    name = str(name_or_path)
    source = _source(name, revision, trust_remote_code=False)
    _, config = _checked(name, source)
    tokenizer: Any = _load_tokenizer(name, source, need=True)  # which raises where there is none
    check_tokens(name, tokenizer, config)


def _checked(name: str, source: dict[str, Any]) -> tuple[Locate, PreTrainedConfig]:
    """Refuse what can be seen to be wrong without weights; where files of the model are."""
    register()
    auto: Any = AutoConfig
    locate = _locate(source)
    with failure_reported(name):
        _refuse_unknown_family(source, name, locate)
        config: PreTrainedConfig = auto.from_pretrained(**source)
        architecture_of(config)
        removed_heads(config)  # a newer format is to be called that, not a damaged file
        if "revision" not in source or is_offline():
            check_weights(name, locate, ModelError)
    return locate, config


def load_config(name_or_path: str | Path, revision: str | None = None) -> PreTrainedConfig:
    """The config of a model of a supported family, without its weights.

    Raises:
        UnsupportedArchitectureError, ModelError, CheckpointError: as `load_base`.
    """
    source = _source(str(name_or_path), revision, trust_remote_code=False)
    auto: Any = AutoConfig
    with failure_reported(str(name_or_path)):
        _refuse_unknown_family(source, str(name_or_path), _locate(source))
        config: PreTrainedConfig = auto.from_pretrained(**source)
        architecture_of(config)
    return config


def resolve_device(device: str) -> torch.device:
    """The device behind "auto", "cpu", "cuda" or "mps".

    Raises:
        ConfigError: another name, or a device that this machine lacks.
    """
    if device not in DEVICES:
        raise ConfigError(f"device={device!r} is unknown; there are {', '.join(DEVICES)}")
    present = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if device == "auto":
        return torch.device(next(kind for kind, there in present.items() if there))
    if not present[device]:
        raise ConfigError(f"device={device!r}: torch finds none here; use auto or cpu")
    return torch.device(device)


def _plain_outputs(model: PreTrainedModel) -> None:
    """Undo what config.json says of the form of outputs: that is the business of who calls.

    Some of it makes transformers refuse to save the model, or return tuples where fields are read.
    """
    for module in model.modules():
        if isinstance(module, PreTrainedModel):
            for name, value in OUTPUTS.items():
                setattr(module.config, name, value)


def check_finite(model: PreTrainedModel, name: str = "the model") -> None:
    """One tiny forward pass; ModelError where it yields NaN or infinity."""
    vocab_size = int(model.get_input_embeddings().get_parameter("weight").shape[0])
    tokens = torch.linspace(0, vocab_size - 1, 8, device=model.device).long()[None]
    with torch.no_grad():
        mask = torch.ones_like(tokens)
        logits = model(input_ids=tokens, attention_mask=mask, use_cache=False).logits
    if not bool(torch.isfinite(logits).all()):
        raise ModelError(
            f"{name} yields NaN or infinite logits in {str(model.dtype).removeprefix('torch.')}; "
            "try dtype float32, and check the checkpoint"
        )


def _resolve_dtype(dtype: str | torch.dtype, device: torch.device) -> str | torch.dtype:
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype == "auto" and device.type == "cpu":
        return torch.float32
    if dtype in ("auto", "saved"):
        return "auto"  # transformers' word for the type of the saved weights
    if dtype not in DTYPES:
        raise ConfigError(f"dtype={dtype!r} is unknown; there are auto, saved, {', '.join(DTYPES)}")
    return DTYPES[dtype]


def _source(name: str, revision: str | None, trust_remote_code: bool) -> dict[str, Any]:
    """The arguments that tell every `from_pretrained` where the model is."""
    path = Path(name).expanduser()
    common: dict[str, Any] = {"trust_remote_code": trust_remote_code}
    if path.is_dir():
        if (path / ADAPTER).is_file():
            raise ModelError(
                f"{path} holds an adapter, not a model; levelhead.load(folder) applies it to its "
                "base model, whose save_pretrained(other_folder) makes a model of it"
            )
        if not (path / "config.json").is_file():
            raise ModelError(f"{path} has no config.json: not the folder of a saved model")
        return {"pretrained_model_name_or_path": str(path), **common}
    if path.exists() or path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        raise ModelError(
            f"{no_such_folder(name)}; a model is the folder of a saved one, a GGUF file, or a name "
            "on the Hugging Face hub"
        )
    return {"pretrained_model_name_or_path": name, "revision": revision or "main", **common}


def _commit(source: dict[str, Any]) -> str | None:
    """The commit on the hub that a branch or tag stands for; None for a local folder."""
    if "revision" not in source:
        return None
    name, revision = source["pretrained_model_name_or_path"], source["revision"]
    return extract_commit_hash(cached_file(name, "config.json", revision=revision), None)


def _locate(source: dict[str, Any]) -> Locate:
    """Where files of the model are; those on the hub are fetched."""
    name = source["pretrained_model_name_or_path"]
    if "revision" not in source:
        return in_folder(Path(name))

    def locate(file: str) -> Path | None:
        found = cached_file(
            name,
            file,
            revision=source["revision"],
            _raise_exceptions_for_missing_entries=file == "config.json",
        )
        return None if found is None else Path(found)

    return locate


def _refuse_unknown_family(source: dict[str, Any], name: str, locate: Locate) -> None:
    """Before AutoConfig, whose own error for families that transformers lacks is another one."""
    architecture_named(check_config(name, locate, ModelError).get("model_type"))


def _load_tokenizer(
    name: str, source: dict[str, Any], need: bool
) -> PreTrainedTokenizerBase | None:
    auto: Any = AutoTokenizer
    try:
        tokenizer: PreTrainedTokenizerBase = auto.from_pretrained(**source, padding_side="left")
        # Where the files are missing, some classes make a tokenizer that knows no word.
        if not _knows_text(tokenizer):
            raise ValueError("no vocabulary")
    except Exception as error:  # every tokenizer class fails on missing files in its own way
        if not need:
            return None
        raise ModelError(
            f"{name} has no tokenizer that can be read ({first_line(error)}); "
            "save one into the model's folder with tokenizer.save_pretrained(folder)"
        ) from error
    ensure_pad_token(tokenizer)
    return tokenizer


def check_tokens(name: str, tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig) -> None:
    """Raise ModelError where the tokenizer has ids that the model's embedding has no row for."""
    rows = getattr(config.get_text_config(), "vocab_size", None)
    if not isinstance(rows, int):
        return
    beyond = sorted((n, token) for token, n in tokenizer.get_vocab().items() if n >= rows)
    if beyond:
        number, token = beyond[0]
        more = f" and {len(beyond) - 1:,} more tokens" if len(beyond) > 1 else ""
        raise ModelError(
            f"{name}: its tokenizer has {token!r} (id {number:,}){more}, and the model's embedding "
            f"ends at {rows - 1:,}: tokens were added without resizing it. Once: model."
            "resize_token_embeddings(len(tokenizer)), then save both; or take those tokens out"
        )


def _knows_text(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether any token is of a letter, of whatever script."""
    words = set(tokenizer.get_vocab()) - set(tokenizer.all_special_tokens)
    return any(character.isalnum() for entry in words for character in entry)


def ensure_pad_token(tokenizer: PreTrainedTokenizerBase) -> None:
    """Give a tokenizer without pad token one that is in its vocabulary already.

    Padding is masked, so any token serves; a new one would need a larger embedding.
    """
    if tokenizer.pad_token is None:
        known = [tokenizer.eos_token, tokenizer.unk_token, tokenizer.bos_token]
        first: Any = tokenizer.convert_ids_to_tokens(0)
        tokenizer.pad_token = next((token for token in known if token is not None), first)
