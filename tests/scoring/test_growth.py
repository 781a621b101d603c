"""How much work an estimator is for models of the same size and another number of heads."""

from dataclasses import replace

import pytest
from benchmarks.growth import WordShare, written_rows

from levelhead.progress import silent
from levelhead.scoring.ablate import ablate
from levelhead.scoring.problem import BiasProblem
from levelhead.scoring.token_gradient import token_gradient
from levelhead.testing import tiny_model, tiny_tokenizer

HEADS = (4, 12, 24)


@pytest.fixture(scope="module")
def problems(prompts) -> list[BiasProblem]:
    made = []
    for heads in HEADS:
        model = tiny_model("llama", num_layers=2, num_heads=heads, num_key_value_heads=heads)
        model.requires_grad_(False)
        made.append(
            BiasProblem.of(model, tiny_tokenizer(), WordShare(), prompts, new_tokens=6, seed=0)
        )
    return made


def passes(problem: BiasProblem, estimator) -> tuple[int, int, int]:
    """(forward passes, tokens they read, backward passes) of an estimator, after the sampling."""
    base = written_rows(problem)
    head = problem.model.lm_head
    read: list[int] = []
    backward: list[None] = []
    hooks = [
        problem.model.base_model.register_forward_pre_hook(
            lambda _, args, kwargs: read.append(kwargs["input_ids"].numel()), with_kwargs=True
        ),
        head.register_full_backward_hook(lambda *_: backward.append(None)),
    ]
    try:
        estimator(problem, base, silent)
    finally:
        for hook in hooks:
            hook.remove()
    return len(read), sum(read), len(backward)


def test_work_of_the_gradient_does_not_depend_on_the_number_of_heads(problems) -> None:
    found = [passes(problem, token_gradient) for problem in problems]
    assert len(set(found)) == 1
    forward, _, backward = found[0]
    assert 0 < backward < forward


def test_control_work_of_naive_ablation_grows_with_the_heads(problems) -> None:
    few = [replace(problem, prompts=problem.prompts[:6]) for problem in problems[:2]]
    found = [passes(problem, ablate)[0] for problem in few]
    assert found[1] >= 2 * found[0]
