"""Weights that are no plain numbers are recognised, whichever library packed them.

What can be done with such models: tests/transfer/test_quantised.py.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn

from levelhead.errors import ModelError
from levelhead.models.quantised import refuse_quantised
from levelhead.testing import tiny_model


@pytest.mark.parametrize("storage", [torch.float8_e4m3fn, torch.int8, torch.uint8])
def test_packed_weights_are_refused(storage):
    """8-bit floats, packed integers, and layers that keep their weights to themselves."""
    model = tiny_model("gpt2")
    refuse_quantised(model)  # a plain one is not refused, nor one in half precision
    refuse_quantised(tiny_model("llama").bfloat16())
    projection = model.transformer.h[1].attn.c_proj
    projection.weight = nn.Parameter(projection.weight.detach().to(storage), requires_grad=False)
    kind = str(storage).removeprefix("torch.")
    with pytest.raises(ModelError, match=rf"c_proj of layer 1 is stored as Parameter, {kind}"):
        refuse_quantised(model)

    class Hidden(nn.Module):
        in_features = 48

    model.transformer.h[1].attn.c_proj = Hidden()
    with pytest.raises(ModelError, match=r"layer 1 is stored as .*Hidden"):
        refuse_quantised(model)
