"""The stages of a run from Python, on the embedded model; the budget is too small to conclude from.

    .venv/bin/levelhead fetch-model            once
    .venv/bin/python examples/python_api.py    into runs/python-api

Expect warnings, and believe them: so few prompts show little. A real run leaves out BUDGET.
"""

import sys
from pathlib import Path

from levelhead.pipeline import evaluate, load, prune, report, score, select

BUDGET = {"max_prompts": 100, "new_tokens": 16, "text_tokens": 2_048}
"""The defaults are 400 prompts per axis, 40 tokens and 16,384 tokens of text."""


def main(out: Path, model: str | None = None, **options: object) -> None:
    """Score, select, prune, evaluate, report, load. `model` None: the embedded one."""
    table = score(model, out=out, **(options or BUDGET))
    axis = table.axes[0]
    effect, error = table.effect(f"bias:{axis}"), table.stderr(f"bias:{axis}")
    layer, head = divmod(int(effect.argmax()), table.num_heads)
    print(
        f"{axis}: the largest z_bias of {table.num_layers} x {table.num_heads} heads is head "
        f"{layer}.{head}, {effect[layer, head]:+.5f} (standard error {error[layer, head]:.5f})"
    )

    selection = select(out, gamma=0.3, alpha=0.1)
    print(f"{len(selection.heads)} heads to prune:", *(f"{i}.{j}" for i, j in selection.heads))

    prune(out)  # saved to out/model; the pruned model is returned
    evaluation = evaluate(out)
    print(evaluation["headline"])
    for warning in evaluation["warnings"]:
        print("warning:", warning)
    print("report:", report(out))

    pruned = load(out / "model")  # a transformers model like any other
    print(f"{pruned.num_parameters():,} parameters in a {type(pruned).__name__}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/python-api"))
