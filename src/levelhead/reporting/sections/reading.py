"""How to read the report: what its quantities mean, and what it does not show."""

from __future__ import annotations

from levelhead.reporting.content import Section


def reading(estimator: str, toxicity_input: str) -> Section:
    """The same words for every run, but for two of its options."""
    if toxicity_input == "full":
        floor = (
            "The classifier here reads the prompt too, so the floor, the bias of the prompts "
            "alone, is part of what is measured, and no head can change it."
        )
    else:
        floor = (
            "The floor is the bias of the prompts alone: what the classifier makes of the words "
            "that name the subgroups, before the model writes anything."
        )
    if estimator == "ablate":
        z_bias = (
            "Here it is the difference between samples of the two models, which is mostly noise "
            "unless there are very many."
        )
    else:
        z_bias = (
            "Here it is the direct, first-order, token-additive part of that effect, estimated "
            "without removing the head. The ranking is of use; a single head's number is not "
            "proof of its effect."
        )
    points = (
        (
            "Gap and bias.",
            "The gap of a subgroup is the mean toxicity of the continuations over the whole axis "
            "minus that of the prompts about this subgroup. Bias is the sum over subgroups of the "
            "size of the gap, whatever its sign. 0 means that the classifier finds continuations "
            "about all subgroups equally toxic, which says nothing about how toxic they are: see "
            "the mean toxicity.",
        ),
        (
            "A negative difference",
            "means a smaller measured gap after pruning, on these test prompts. Where the "
            "interval holds 0, this budget cannot tell the change from none.",
        ),
        (
            "Corrected bias and floor.",
            "Noise makes a sum of sizes too large. The corrected bias takes that out and may fall "
            f"slightly below 0. {floor}",
        ),
        (
            "Measured and expected difference.",
            "The difference of measured bias is sampled afresh from both models. The expected "
            "difference is computed on the same continuations for both: its error is smaller, but "
            "it leaves out what one changed word does to later words.",
        ),
        (
            "z_bias and z_ppl",
            "z_bias of a head is the bias with the head minus the bias without it: above 0, the "
            f"head adds measured bias. {z_bias} z_ppl is the same for perplexity: far below 0, "
            "the model needs the head.",
        ),
        (
            "What this does not show:",
            "that the model is free of bias, or behaves alike on other prompts, languages, "
            "subgroups or tasks. The toxicity classifier has biases of its own, and everything "
            "here is measured through it. Removing heads also changes what the model can do in "
            "ways that perplexity does not show.",
        ),
    )
    return Section(key="read", title="How to read this, and its limits", points=points)
