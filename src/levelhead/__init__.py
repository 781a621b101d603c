"""Find the attention heads of a causal language model that add measured bias, and prune them.

Fairness-Aware Structured Pruning (FASP, arXiv 2312.15398). The functions have the names of the
commands: `score`, `select`, `prune`, `evaluate`, `report`, or `run` for all of them in order,
`retry` and `results` for other selections beside the first, `load` for a pruned model, the
experiments on a run (`compare`, `axes`, `heads`, `agree`, `interactions`, `examples`, `transfer`,
`rescore`), `scorers` for what toxicity scorers react to, `verify` as a gate, `reproduce` for the
paper's row, `diagnose` for score tables from elsewhere, and for the pruned model at work `tasks`,
`bench_model`, `export_model` and `push`. They are imported when first used, so that
`import levelhead` is cheap. After it, transformers' own `from_pretrained` reads pruned checkpoints,
too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from levelhead.models.on_import import register_when_imported

__version__ = "0.1.0"
__all__ = [
    "agree",
    "axes",
    "bench_model",
    "compare",
    "diagnose",
    "evaluate",
    "examples",
    "export_model",
    "heads",
    "interactions",
    "load",
    "prune",
    "prune_weights",
    "push",
    "report",
    "reproduce",
    "rescore",
    "results",
    "retry",
    "run",
    "score",
    "scorers",
    "select",
    "tasks",
    "transfer",
    "verify",
]

if TYPE_CHECKING:
    from levelhead.pipeline import (
        agree,
        axes,
        bench_model,
        compare,
        diagnose,
        evaluate,
        examples,
        export_model,
        heads,
        interactions,
        load,
        prune,
        prune_weights,
        push,
        report,
        reproduce,
        rescore,
        results,
        retry,
        run,
        score,
        scorers,
        select,
        tasks,
        transfer,
        verify,
    )


def __getattr__(name: str) -> Any:
    if name in __all__:
        from levelhead import pipeline

        return getattr(pipeline, name)
    raise AttributeError(f"module 'levelhead' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])


register_when_imported()
