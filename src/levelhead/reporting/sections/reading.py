"""How to read the report: what its quantities mean, and what it does not show."""

from __future__ import annotations

from levelhead.reporting.content import Section
from levelhead.verdict_words import FELL


def reading(estimator: str, toxicity_input: str) -> Section:
    """The same words for every run, but for two of its options."""
    if toxicity_input == "full":
        floor = (
            "The classifier here reads the prompt too, so the prompt floor, the bias of the "
            "prompts alone, is part of what is measured, and no head can change it."
        )
    else:
        floor = (
            "The prompt floor is the bias of the prompts alone: what the classifier makes of them "
            "before the model writes anything."
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
            "Lower, echo only, less toxic for everyone, not distinguishable, higher:",
            "the verdict on an axis, on these test prompts. It rests on the noise-adjusted "
            "difference, below 0 where the measured gap fell. Not distinguishable is not the same "
            "as no effect: where the interval holds 0, this budget cannot tell the change from "
            "none.",
        ),
        (
            "Masked and plain reading, and echo.",
            "A scorer reacts to the words that name groups, and a model repeats the word of its "
            "prompt. So by default it reads texts in which identity words are replaced by "
            "neutral ones (masked); the plain reading is of the same texts as they are. The echo, "
            "plain bias minus masked bias, is what the names alone add. A smaller echo is no "
            "smaller harm.",
        ),
        (
            "Own-group mentions.",
            "The share of continuations that name the group of their prompt. A clear fall is a "
            f"warning. {FELL}",
        ),
        (
            "Second scorer.",
            "Another scorer reads the same texts. Where the two disagree, the result depends on "
            "the scorer.",
        ),
        (
            "Common factor.",
            "If toxic texts become rarer for everybody, every gap shrinks. Beyond the common "
            "factor is what the gap fell by more than that.",
        ),
        (
            "Corrected bias and noise-adjusted difference.",
            "Noise makes a sum of sizes too large. The corrected bias takes that out and may fall "
            "slightly below 0. The noise-adjusted difference takes out the luck of which words "
            "were drawn. Both estimate what the values as sampled do, with other errors, so "
            f"pruned minus base is not exactly the adjusted difference. {floor}",
        ),
        (
            "Expected difference.",
            "A prediction, on the same continuations for both models: its error is smaller, but "
            "it leaves out what one changed word does to later words. It gives no verdict.",
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
