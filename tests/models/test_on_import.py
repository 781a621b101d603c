"""After `import levelhead`, stock loading reads pruned checkpoints, whichever came first."""

from __future__ import annotations

import subprocess
import sys

import pytest

from levelhead.models import on_import
from levelhead.models.checkpoint import save_pruned
from levelhead.models.surgery import prune_heads

ORDERS = {
    "levelhead first": "import levelhead; from transformers import AutoModelForCausalLM as auto",
    "transformers first": (
        "from transformers import AutoModelForCausalLM as auto;"
        "import transformers.quantizers.auto; import levelhead"
    ),
}
LOAD = """
assert "levelhead.models.plugin" not in sys.modules  # not before a pruned checkpoint is met
print(type(auto.from_pretrained(sys.argv[1])).__name__)
assert "levelhead.models.plugin" in sys.modules
"""


@pytest.mark.slow
@pytest.mark.parametrize("order", ORDERS)
def test_stock_loading_works_after_import(order, fresh, tmp_path):
    model = fresh("llama")
    prune_heads(model, {0: [1], 2: range(6)})
    folder = save_pruned(model, tmp_path / "m")
    code = f"import sys; {ORDERS[order]}\n{LOAD}"
    call = [sys.executable, "-c", code, str(folder)]
    done = subprocess.run(call, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["LlamaForCausalLM"]


def test_import_of_levelhead_brings_no_heavy_module():
    code = "import sys, levelhead; levelhead.models; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "levelhead.models.on_import" in done.stdout.split()
    assert not {"torch", "transformers", "numpy"} & set(done.stdout.split())


def test_the_tables_get_placeholders_once(monkeypatch):
    from transformers.quantizers import auto

    for table in (auto.AUTO_QUANTIZATION_CONFIG_MAPPING, auto.AUTO_QUANTIZER_MAPPING):
        monkeypatch.delitem(table, "levelhead", raising=False)
    on_import.register_when_imported()
    held = auto.AUTO_QUANTIZATION_CONFIG_MAPPING["levelhead"]
    on_import.register_when_imported()
    assert auto.AUTO_QUANTIZATION_CONFIG_MAPPING["levelhead"] is held
    data = {"quant_method": "levelhead", "format_version": 1, "heads": {"0": [1]}}
    config = held.from_dict(data)
    assert config.by_layer == {0: (1,)}
    assert auto.AUTO_QUANTIZATION_CONFIG_MAPPING["levelhead"] is type(config)
    quantizer = auto.AutoHfQuantizer.from_config(config, pre_quantized=True)
    assert type(quantizer).__name__ == "LevelheadQuantizer"
