"""Draw a seeded, balanced part of a prompt set, keeping matched prompts together.

A matched group is one prompt per subgroup of an axis with the same template and variant: the
same sentence, said of each subgroup in turn. Paired estimators need whole groups, so a draw takes
groups. Templates and words are both samples of what could be said, so it spreads over as many
templates as it can, registers in turn, with another word at each: 80 groups of the built-in set
are 80 templates, every word 20 times, every word with every register.

It does not know where prompts come from, nor what is done with them.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice, zip_longest

import numpy as np

from levelhead.errors import PromptError
from levelhead.records import Prompt, Split


def subgroups_of(prompts: Sequence[Prompt]) -> list[str]:
    """The names of the subgroups that have prompts, sorted."""
    return sorted({prompt.subgroup for prompt in prompts})


def matched_groups(prompts: Sequence[Prompt]) -> list[list[Prompt]]:
    """The groups of prompts that differ only in the subgroup, one prompt per subgroup each.

    A group has the same axis, split, template and variant, and exactly one prompt of every
    subgroup (two or more) that its axis has in its split. Prompts outside such a group are left
    out. Groups are sorted by (axis, split, template, variant), prompts within a group by subgroup.
    """
    subgroups: dict[tuple[str, str], set[str]] = defaultdict(set)
    groups: dict[tuple[str, str, str, int], list[Prompt]] = defaultdict(list)
    for prompt in prompts:
        subgroups[prompt.axis, prompt.split].add(prompt.subgroup)
        groups[prompt.axis, prompt.split, prompt.template, prompt.variant].append(prompt)
    whole = []
    for (axis, split, _, _), group in sorted(groups.items()):
        needed = subgroups[axis, split]
        if 2 <= len(needed) == len(group) and {prompt.subgroup for prompt in group} == needed:
            whole.append(sorted(group, key=lambda prompt: prompt.subgroup))
    return whole


def select_prompts(
    prompts: Sequence[Prompt],
    axis: str,
    split: Split,
    max_prompts: int | None = None,
    seed: int = 0,
) -> list[Prompt]:
    """Draw at most `max_prompts` prompts of one axis and split, balanced over subgroups.

    The draw takes whole matched groups: registers in turn, every template once before any
    template twice, and each time the variant (the word) that was least used so far, of those the
    one least used with this register; ties are shuffled by `seed`. A smaller draw is the
    beginning of a larger one, so few prompts are spread as evenly as many. Where the prompts have
    matched groups for less than half of the draw (a file without templates), it takes the same
    number of prompts from every subgroup instead, fewer only where a subgroup has fewer.

    Args:
        prompts: a prompt set; the order of its prompts does not matter.
        max_prompts: at least one prompt per subgroup; None, or a number that no prompt exceeds,
            returns every prompt of the axis and split, unbalanced if the set is.
        seed: of the draw, not of anything that is sampled later.

    Raises:
        PromptError: no such axis, fewer than two subgroups with prompts in this split, or
            `max_prompts` below the number of subgroups.
    """
    check_subgroups(prompts, axis, split)
    pool = sorted(
        (prompt for prompt in prompts if prompt.axis == axis and prompt.split == split),
        key=lambda prompt: (prompt.template, prompt.variant, prompt.subgroup, prompt.id),
    )
    num_subgroups = len(subgroups_of(pool))
    if max_prompts is None:
        return pool
    if max_prompts < num_subgroups:
        raise PromptError(
            f"at most {max_prompts} prompts cannot cover the {num_subgroups} subgroups of axis "
            f"{axis!r}: allow at least {num_subgroups}"
        )
    if max_prompts >= len(pool):
        return pool
    rng = np.random.default_rng(seed)
    wanted = max_prompts // num_subgroups
    groups = matched_groups(pool)
    if 2 * len(groups) >= wanted:
        return [prompt for group in islice(_spread(groups, rng), wanted) for prompt in group]
    return _balanced(pool, wanted, rng)


def check_subgroups(prompts: Sequence[Prompt], axis: str, split: Split) -> None:
    """Raise PromptError unless `axis` has two subgroups or more with prompts in `split`.

    One subgroup gives a bias of 0 whatever the model does.
    """
    axes = sorted({prompt.axis for prompt in prompts})
    if axis not in axes:
        raise PromptError(f"unknown axis {axis!r}: the prompts have {', '.join(axes) or 'none'}")
    found = subgroups_of([p for p in prompts if p.axis == axis and p.split == split])
    if len(found) < 2:
        raise PromptError(
            f"axis {axis!r} has {split} prompts of {len(found)} subgroup(s)"
            f"{': ' + found[0] if found else ''}; a gap needs at least 2"
        )


def _spread(groups: list[list[Prompt]], rng: np.random.Generator) -> Iterator[list[Prompt]]:
    """Groups in an order that visits registers, templates and variants as evenly as it can."""
    variants = sorted({group[0].variant for group in groups})
    rank = {variants[i]: turn for turn, i in enumerate(rng.permutation(len(variants)))}
    left: dict[str, dict[int, list[Prompt]]] = defaultdict(dict)
    for group in groups:
        left[group[0].template][group[0].variant] = group
    register = {group[0].template: group[0].register for group in groups}
    templates = _in_turn(register, rng)
    used: Counter[int] = Counter()
    used_with: Counter[tuple[str, int]] = Counter()
    while templates:
        for template in templates:
            own = register[template]
            variant = min(left[template], key=lambda v: (used[v], used_with[own, v], rank[v]))
            used[variant] += 1
            used_with[own, variant] += 1
            yield left[template].pop(variant)
        templates = [template for template in templates if left[template]]


def _in_turn(register: Mapping[str, str], rng: np.random.Generator) -> list[str]:
    """Templates, shuffled, of one register after the other in turn."""
    names = list(register)
    queues: dict[str, list[str]] = defaultdict(list)
    for i in rng.permutation(len(names)):
        queues[register[names[i]]].append(names[i])
    return [name for turn in zip_longest(*queues.values()) for name in turn if name is not None]


def _balanced(pool: list[Prompt], each: int, rng: np.random.Generator) -> list[Prompt]:
    """`each` prompts of every subgroup, interleaved, so that a part of it is balanced too."""
    columns = []
    for subgroup in subgroups_of(pool):
        own = [prompt for prompt in pool if prompt.subgroup == subgroup]
        columns.append([own[i] for i in rng.permutation(len(own))[:each]])
    return [column[turn] for turn in range(each) for column in columns if turn < len(column)]
