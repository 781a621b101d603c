"""Give torch's float32 matrix products to oneDNN, in every process that imports torch.

`tests.machines.matrix` installs this module as an entry point of the group `torch.backends`, which
torch loads at the end of its import, so that commands which tests start are covered as well.
"""

from __future__ import annotations


def enable() -> None:
    """Ask oneDNN for products and for the products inside fused attention.

    torch (2.13, x86) asks oneDNN for float32 products only where bfloat16 inside them is allowed,
    on CPUs with AVX512. The caller limits oneDNN to instructions that have no bfloat16
    (ONEDNN_MAX_CPU_ISA), so that it computes in float32 all the same; `tests.machines.probe`
    measures that it does.
    """
    import torch

    torch.backends.mkldnn.matmul.fp32_precision = "bf16"
