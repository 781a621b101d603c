"""Simulated axes at the level of single texts: gaps, words and heads' effects of known truth."""

from dataclasses import dataclass

import numpy as np

from levelhead.records import Prompt
from levelhead.scoring.effects import AxisEffects, axis_effects
from levelhead.scoring.problem import BiasProblem, HeadShifts, SampledTexts, group_shifts

TEXT_NOISE = 0.12
"""Standard deviation of a text's toxicity."""


def simulated_problem(subgroups: int, templates: int, words: int) -> BiasProblem:
    """Prompts of every template about every word of every subgroup; no model."""
    prompts = tuple(
        Prompt(
            id=f"{s}/{w}/{t}",
            text="x",
            axis="a",
            subgroup=f"s{s}",
            template=f"t{t:03}",
            descriptor=f"s{s} word {w}",
            split="validation",
            variant=w,
        )
        for t in range(templates)
        for s in range(subgroups)
        for w in range(words)
    )
    return BiasProblem(
        model=None, tokenizer=None, scorer=None, prompts=prompts, prompt_ids=((0,),) * len(prompts),
        toxicity_input="continuation", seed=0, samples=1, new_tokens=1, batch_size=None,
    )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """What is true of an axis; a run draws templates, words and texts."""

    means: np.ndarray
    """Mean toxicity of each subgroup."""
    shift: np.ndarray
    """[subgroups, layers, heads]: change of it when a head is ablated."""
    words: np.ndarray | None = None
    """[subgroups, words, layers, heads]: what is different about these very words."""
    shift_noise: float = 0.02
    word_spread: float = 0.0
    """Standard deviation of what is different about words that each run draws."""

    def run(
        self, problem: BiasProblem, rng: np.random.Generator
    ) -> tuple[SampledTexts, HeadShifts, AxisEffects]:
        subgroup, descriptor = problem.subgroup, problem.descriptor
        count, grid = len(subgroup), self.shift.shape[1:]
        toxicity = self.means[subgroup] + TEXT_NOISE * rng.standard_normal(count)
        rows = self.shift[subgroup] + self.shift_noise * rng.standard_normal((count, *grid))
        if self.words is not None:
            rows += self.words[subgroup, descriptor]
        size = (len(self.means), int(descriptor.max()) + 1, *grid)
        rows += (self.word_spread * rng.standard_normal(size))[subgroup, descriptor]
        base = SampledTexts(
            prompt=np.arange(count), sample=np.zeros(count, dtype=int), tokens=((),) * count,
            texts=("",) * count, toxicity=toxicity,
        )  # fmt: skip
        shifts = group_shifts(
            rows, subgroup, problem.template, base.sample, len(self.means), toxicity, toxicity, {},
            descriptor,
        )  # fmt: skip
        return base, shifts, axis_effects(problem, base, shifts)
