"""What this process computes with, and how: one line of JSON.

python -m tests.machines.probe
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import torch
from torch.nn.functional import linear, scaled_dot_product_attention, softmax


def probe() -> dict[str, Any]:
    """`capability` and `threads` of torch, `error` of its float32 products, and digests of results.

    The error is the largest one of a product against double precision, relative to the largest
    value: about 1e-6 in float32, 1e-2 in bfloat16. The digests are of `products`, fused
    `attention`, an `elementwise` softmax and a large `sum`: other bits, other rounding.
    """
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    x, weight = random(30, 576), random(1536, 576)
    query = random(2, 6, 10, 64)
    product = linear(x, weight)
    exact = linear(x.double(), weight.double())
    return {
        "capability": torch.backends.cpu.get_cpu_capability().lower(),
        "threads": torch.get_num_threads(),
        "mkl": torch.backends.mkl.is_available(),
        "error": float((product - exact).abs().max() / exact.abs().max()),
        "products": _digest(product, query @ query.transpose(-1, -2), linear(x[:3], weight)),
        "attention": _digest(scaled_dot_product_attention(query, query, query, is_causal=True)),
        "elementwise": _digest(softmax(x, -1)),
        "sum": _digest(random(1_000_000).sum()),
    }


def _digest(*tensors: torch.Tensor) -> str:
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(tensor.contiguous().numpy().tobytes())
    return found.hexdigest()[:8]


if __name__ == "__main__":
    print(json.dumps(probe()))
