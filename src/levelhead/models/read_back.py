"""Whether a model that was just saved is the model: loaded again before it is called done.

transformers renames, packs and splits tensors as it saves, by what it remembers of how the model
was loaded; what comes of it is another model, or none, in ways that only loading shows. Knows no
format: what stock shapes and sliced ones have in common is the logits.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from levelhead.errors import CheckpointError
from levelhead.models.load_failures import described
from levelhead.models.plugin import register

TOKENS = 12
LIMIT, HALF_LIMIT = 1e-3, 1e-1
"""By how much logits may differ, as a share of the largest: zeros in place of heads are added up in
another order. Another model differs by its whole size. Of the median token: where a router chooses
experts, rounding alone can choose others for one."""


def check_saved(folder: Path, model: PreTrainedModel, target: Path) -> None:
    """Raise CheckpointError where a saved folder does not load as the model that was saved.

    Args:
        folder: where it is now.
        target: where it is to be, for the message.
    """
    register()
    auto: Any = AutoModelForCausalLM
    try:
        read, report = auto.from_pretrained(
            folder, dtype="auto", trust_remote_code=False, output_loading_info=True
        )
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        raise _not_kept(target, f"cannot be read back ({described(error)})") from error
    if missing := sorted(report["missing_keys"]):
        raise _not_kept(target, f"would lack {len(missing)} tensors, among them {missing[0]}")
    with torch.no_grad():
        before, after = _logits(model), _logits(read.eval())
    scale = float(before.abs().max()) or 1.0
    difference = float((before - after).abs().amax(dim=-1).median()) / scale
    limit = LIMIT if read.dtype in (torch.float32, torch.float64) else HALF_LIMIT
    if not difference <= limit:  # NaN is none
        raise _not_kept(target, f"computes other logits (by {difference:.2g} of the largest)")


def _not_kept(target: Path, what: str) -> CheckpointError:
    return CheckpointError(
        f"{target}: what transformers saves of this model {what}; nothing was kept there. Load it "
        "without quantisation, save that with save_pretrained, and prune the result"
    )


def _logits(model: Any) -> Float[Tensor, "tokens vocabulary"]:
    """Of one short sequence, on the CPU."""
    size = int(model.get_input_embeddings().weight.shape[0])
    tokens = torch.linspace(0, size - 1, TOKENS, device=model.device).long()[None]
    training, _ = model.training, model.eval()
    logits = model(tokens, use_cache=False, return_dict=True).logits
    model.train(training)
    found: Tensor = logits[0].float().cpu()
    return found
