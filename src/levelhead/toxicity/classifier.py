"""Any Hugging Face sequence classifier as a toxicity scorer, in float32 on one device.

Knows transformers, and nothing of any particular model: which output means "toxic" is decided by
`labels.py`. Never runs code that a model ships, and loads pickled weights only on request.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from levelhead.errors import LevelheadError, ScorerError
from levelhead.toxicity.base import ScorerCost
from levelhead.toxicity.labels import ToxicOutput, find_toxic_output
from levelhead.weight_files import Locate, check_config, check_weights, in_folder, no_conversion

if TYPE_CHECKING:
    import torch

_LONGEST = 512  # tokens; longer texts are cut at the end
_TEXTS_AT_ONCE = 8192  # sorted by length together; bounds the memory of their token ids
_HASHED_SUFFIXES = {".json", ".txt", ".model", ".safetensors", ".bin"}
_ELSEWHERE = "--scorer toxicityclassifier needs no network, --scorer FOLDER reads a saved model"


class SequenceClassifier:
    """Probability of one output of a sequence classifier; made by `load_classifier`."""

    cost: ScorerCost = "expensive"

    def __init__(
        self,
        *,
        name: str,
        identity: str,
        model: Any,
        tokenizer: Any,
        output: ToxicOutput,
        max_tokens: int,
        batch_size: int = 32,
    ) -> None:
        self.name = name
        self.identity = identity
        self.output = output
        self.max_tokens = max_tokens
        self._model = model
        self._tokenizer = tokenizer
        # Without a pad token, a batch is one text.
        self._batch_size = 1 if tokenizer.pad_token is None else batch_size
        special = (tokenizer.unk_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
        self._filler = next((token for token in special if token is not None), 0)

    def unknown_share(self, texts: Sequence[str]) -> float:
        """Of the tokens of these texts, the share that the tokenizer does not know, 0 to 1.

        1 where it makes no tokens of them; 0 where it knows every text, as those of bytes do.
        """
        encoded = self._tokenizer(list(texts), add_special_tokens=False)["input_ids"]
        ids = [token for row in encoded for token in row]
        unknown = sum(token == self._tokenizer.unk_token_id for token in ids)
        return unknown / len(ids) if ids else 1.0

    def __call__(self, texts: Sequence[str]) -> Float[np.ndarray, "texts"]:
        """Probability in [0, 1] that each text is toxic; texts past `max_tokens` are cut."""
        scores = np.empty(len(texts))
        for start in range(0, len(texts), _TEXTS_AT_ONCE):
            part = slice(start, start + _TEXTS_AT_ONCE)
            scores[part] = self._score_sorted(list(texts[part]))
        return scores

    def _score_sorted(self, texts: list[str]) -> Float[np.ndarray, "texts"]:
        """Batches of texts of about the same length waste the least on padding."""
        import torch

        tokens = self._tokenizer(texts, truncation=True, max_length=self.max_tokens)
        for row, ids in enumerate(tokens["input_ids"]):
            if not ids:  # an empty text, and a tokenizer that adds nothing
                ids.append(self._filler)
                tokens["attention_mask"][row].append(1)
                tokens.get("token_type_ids", {row: []})[row].append(0)
        order = np.argsort([len(ids) for ids in tokens["input_ids"]], kind="stable")[::-1]
        scores = np.empty(len(texts))
        with torch.inference_mode():
            for start in range(0, len(texts), self._batch_size):
                rows = order[start : start + self._batch_size]
                batch = {key: [values[row] for row in rows] for key, values in tokens.items()}
                if len(rows) > 1:
                    batch = self._tokenizer.pad(batch)
                tensors = {
                    key: torch.tensor(values, device=self._model.device)
                    for key, values in batch.items()
                }
                logits = self._model(**tensors).logits.float()
                scores[rows] = self._probability(logits).cpu().numpy()
        return scores

    def _probability(self, logits: "torch.Tensor") -> "torch.Tensor":
        if self.output.activation == "sigmoid":
            return logits[:, self.output.index].sigmoid()
        return logits.softmax(dim=-1)[:, self.output.index]


def load_classifier(
    name: str,
    *,
    device: str = "cpu",
    other_names: Sequence[str] = (),
) -> SequenceClassifier:
    """The sequence classifier `MODEL[@REVISION][#LABEL]`, MODEL a hub id or a local folder.

    Args:
        name: the model, optionally a hub revision, optionally the label that means "toxic".
        device: where it runs.
        other_names: scorers to name in the error where there is no such model.

    Raises:
        ScorerError: the model cannot be found or reached, is not a sequence classifier, needs code
            of its own, has no safetensors weights (pickles are read within
            `permissions.pickles_allowed` only), has no tokenizer or one without a word, or does
            not show which of its labels means "toxic".
    """
    from transformers import AutoConfig

    model_name, revision, label = _parse(name)
    try:
        config = AutoConfig.from_pretrained(model_name, revision=revision, trust_remote_code=False)
    except Exception as err:  # a config that somebody wrote makes transformers raise anything
        known = ", ".join(other_names)
        raise ScorerError(
            f"no toxicity scorer {name!r}: it is none of the built-in names ({known}) and no "
            f"model could be read from that folder or hub id ({_first_line(err)}). {_ELSEWHERE}"
        ) from err
    # One commit for weights and tokenizer; transformers also takes weights from an open pull
    # request of a repository, but only where the revision is a branch.
    revision = getattr(config, "_commit_hash", None) or revision
    check_config(model_name, _locate(model_name, revision), ScorerError)
    output = find_toxic_output(model_name, config.id2label, config.problem_type, label)
    tokenizer = _load_tokenizer(name, model_name, revision)
    model = _load_model(model_name, revision).to(device)
    if tokenizer.pad_token is not None and model.config.pad_token_id is None:
        model.config.pad_token_id = tokenizer.pad_token_id  # decoders read the last real token
    return SequenceClassifier(
        name=name,
        identity=f"classifier:{_version(model_name, revision)}#{output.label}",
        model=model,
        tokenizer=tokenizer,
        output=output,
        max_tokens=_max_tokens(model, tokenizer),
    )


def _parse(name: str) -> tuple[str, str | None, str | None]:
    """(model, revision, label) of `MODEL[@REVISION][#LABEL]`; a folder's name may hold both."""
    if Path(name).is_dir():
        return name, None, None
    marks = [place for place, letter in enumerate(name) if letter == "#"]
    for place in reversed(marks):
        if Path(name[:place]).is_dir():
            return name[:place], None, name[place + 1 :] or None
    model, _, label = name.partition("#")
    model, _, revision = model.partition("@")
    return model, revision or None, label or None


def _locate(name: str, revision: str | None) -> Locate:
    """Where files of the classifier are; those on the hub are fetched."""
    from transformers.utils.hub import cached_file

    if Path(name).is_dir():
        return in_folder(Path(name))

    def locate(file: str) -> Path | None:
        missing = file == "config.json"
        found = cached_file(
            name, file, revision=revision, _raise_exceptions_for_missing_entries=missing
        )
        return None if found is None else Path(found)

    return locate


def _load_tokenizer(name: str, model: str, revision: str | None) -> Any:
    """The tokenizer; transformers makes one of special tokens alone where its files are missing."""
    from transformers import AutoTokenizer

    remedy = (
        "save the tokenizer that the classifier was trained with beside its weights "
        "(tokenizer.save_pretrained: tokenizer.json, vocab.txt or a .model file), or choose "
        "another --scorer"
    )
    try:
        tokenizer = AutoTokenizer.from_pretrained(model, revision=revision, trust_remote_code=False)
    except Exception as err:
        raise ScorerError(
            f"toxicity scorer {name!r} has no usable tokenizer: {_first_line(err)} ({remedy})"
        ) from err
    entries = set(tokenizer.get_vocab())
    words = entries - set(tokenizer.all_special_tokens)
    if not any(character.isalnum() for entry in words for character in entry):
        raise ScorerError(
            f"toxicity scorer {name!r} has no usable tokenizer: its {len(entries)} entries are "
            "special tokens, so every word of every text is unknown to it; the tokenizer's files "
            f"are missing or empty: {remedy}"
        )
    return tokenizer


def _load_model(name: str, revision: str | None) -> Any:
    from transformers import AutoModelForSequenceClassification

    try:
        with no_conversion():
            model, info = AutoModelForSequenceClassification.from_pretrained(
                name,
                revision=revision,
                use_safetensors=check_weights(name, _locate(name, revision), ScorerError),
                dtype="float32",
                output_loading_info=True,
                trust_remote_code=False,
            )
    except LevelheadError:
        raise
    except Exception as err:
        raise ScorerError(
            f"cannot load the weights of toxicity scorer {name!r}: {_first_line(err)} "
            f"({_ELSEWHERE})"
        ) from err
    if info["missing_keys"]:
        raise ScorerError(
            f"{name!r} is not a trained sequence classifier: it has no weights for "
            f"{', '.join(sorted(info['missing_keys'])[:3])}; choose another model with --scorer"
        )
    return model.eval().requires_grad_(False)


def _version(name: str, revision: str | None) -> str:
    """Hub id and commit, or the hash of a local folder's files, wherever the folder is."""
    folder = Path(name)
    if not folder.is_dir():
        return f"{name}@{revision}"
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.suffix in _HASHED_SUFFIXES:
            digest.update(path.name.encode() + b"\0")
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return f"sha256:{digest.hexdigest()[:32]}"


def _max_tokens(model: Any, tokenizer: Any) -> int:
    limits = [_LONGEST, tokenizer.model_max_length]
    table = getattr(getattr(model.base_model, "embeddings", None), "position_embeddings", None)
    if table is not None:
        # RoBERTa counts positions from padding_idx + 1, so its table is longer than its limit.
        padding_idx = getattr(table, "padding_idx", None)
        limits.append(table.num_embeddings - (0 if padding_idx is None else padding_idx + 1))
    elif positions := getattr(model.config, "max_position_embeddings", None):
        limits.append(positions)
    return int(min(limits))


def _first_line(err: Exception) -> str:
    return str(err).strip().partition("\n")[0]
