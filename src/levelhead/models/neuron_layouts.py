"""Where each model family keeps the neurons of its MLPs: facts only, as in architectures.py.

A neuron is one input of a layer's down projection: what an MLP computes there is one number per
neuron. Mixtures of experts are refused: a neuron of an expert is read only by the tokens that are
sent to that expert, and experts keep their weights in one block.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from levelhead.errors import UnsupportedArchitectureError
from levelhead.models.architectures import architecture_of, decoder_layers
from levelhead.models.removed_heads import removed_neurons
from levelhead.models.slicing import input_width


@dataclass(frozen=True, slots=True, kw_only=True)
class MlpLayout:
    """The MLP of one kind of family; `mlp` is the path from a decoder layer, "" the layer itself.

    `inputs` are the projections whose outputs are the neurons, in `down` they are the inputs.
    """

    inputs: tuple[str, ...]
    down: str
    mlp: str = "mlp"
    fused: int = 1
    """How many blocks of one output per neuron each of `inputs` holds, one after the other."""


_GATED = MlpLayout(inputs=("gate_proj", "up_proj"), down="down_proj")
_FC = MlpLayout(inputs=("c_fc",), down="c_proj")
_4H = MlpLayout(inputs=("dense_h_to_4h",), down="dense_4h_to_h")
LAYOUTS: dict[str, MlpLayout] = {
    **dict.fromkeys(("gpt2", "gpt_neo", "starcoder2"), _FC),
    "gptj": MlpLayout(inputs=("fc_in",), down="fc_out"),
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text"), _GATED),
    **dict.fromkeys(("gemma3", "cohere", "cohere2", "stablelm", "granite", "olmo"), _GATED),
    "olmo2": _GATED,
    "phi3": MlpLayout(inputs=("gate_up_proj",), down="down_proj", fused=2),
    **dict.fromkeys(("gpt_neox", "bloom", "falcon"), _4H),
    "opt": MlpLayout(inputs=("fc1",), down="fc2", mlp=""),
}
"""By `config.model_type`."""
EXPERTS = ("mixtral", "qwen3_moe", "gpt_oss")


def layout_of(model_or_config: PreTrainedModel | PreTrainedConfig) -> MlpLayout:
    """The layout of a model's MLPs.

    Raises:
        UnsupportedArchitectureError: a mixture of experts, or a family that is not known.
    """
    family = architecture_of(model_or_config)
    config = getattr(model_or_config, "config", model_or_config)
    kind = str(getattr(config, "model_type", None))
    if kind in LAYOUTS:
        return LAYOUTS[kind]
    if kind in EXPERTS:
        raise UnsupportedArchitectureError(
            f"{family.name} is a mixture of experts: each token is sent to a few of them, so that "
            "no neuron is read by all tokens; its neurons can be neither scored nor removed. "
            "Use --unit head or layer"
        )
    raise UnsupportedArchitectureError(
        f"where {family.name} ({kind}) keeps its neurons is not known; neurons are known of "
        f"{', '.join(LAYOUTS)}. Use --unit head or layer"
    )


def mlp_modules(model: PreTrainedModel) -> list[nn.Module]:
    """What holds the projections of every decoder layer's MLP, first to last."""
    path = layout_of(model).mlp
    return [layer.get_submodule(path) for layer in decoder_layers(model)]


def down_projections(model: PreTrainedModel) -> list[nn.Module]:
    """The down projection of every decoder layer, first to last."""
    name = layout_of(model).down
    return [mlp.get_submodule(name) for mlp in mlp_modules(model)]


def neuron_counts(model: PreTrainedModel) -> tuple[int, int]:
    """(number of layers, neurons per layer) of the unpruned model."""
    gone = removed_neurons(model)
    widths = [input_width(down) for down in down_projections(model)]
    return len(widths), max(w + len(gone.get(layer, ())) for layer, w in enumerate(widths))


def kept_neurons(model: PreTrainedModel) -> list[tuple[int, ...]]:
    """For every layer the neurons it has, numbered as in the unpruned model."""
    num_layers, num_neurons = neuron_counts(model)
    gone = {layer: set(neurons) for layer, neurons in removed_neurons(model).items()}
    return [
        tuple(n for n in range(num_neurons) if n not in gone.get(layer, ()))
        for layer in range(num_layers)
    ]
