"""Looks at growing samples: which were planned, which were taken, and at what error the next is.

A difference that is looked at twice, each time at a 5% error, is falsely told in 9% of runs. So
looks are planned (`--looks 4,8,16`) before the first is taken, and share the 5% (alpha spending);
a look that was not planned is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from levelhead.config import RunConfig
from levelhead.errors import ConfigError
from levelhead.metrics.looks import look_level

_SAME = ("model", "prompts", "scorer", "heads", "neurons", "gates")
"""Of what an evaluation is `of`: another of these is another question."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One look, and what it may cost of the 5%."""

    planned: tuple[int, ...]
    """Continuations per test prompt at each look."""
    samples: int
    level: float
    """Error of all verdicts of this look together."""
    earlier: tuple[Mapping[str, Any], ...] = ()
    """Looks taken before, as `to_json` gives them."""

    def to_json(self, seed: int, verdicts: Mapping[str, str]) -> dict[str, Any]:
        """The form of evaluation.json's `looks`."""
        taken = {
            "samples": self.samples,
            "seed": seed,
            "error": self.level,
            "verdicts": dict(verdicts),
        }
        return {"planned": list(self.planned), "taken": [*self.earlier, taken]}


def next_look(config: RunConfig, held: Mapping[str, Any] | None, of: Mapping[str, Any]) -> Look:
    """The look that an evaluation is about to take.

    Args:
        config: of the evaluation.
        held: evaluation.json, where there is one.
        of: what is to be evaluated.

    Raises:
        ConfigError: it was not planned.
    """
    planned, samples = config.planned_looks, config.test_samples
    first = held is None or "looks" not in held or not _same(held.get("of", {}), of)
    if first or held is None:
        return Look(planned=planned, samples=samples, level=look_level(samples, planned))
    taken = held["looks"]["taken"]
    before = [one for one in taken if one["seed"] == config.seed]
    if not before:  # other texts of the same prompts: a test of its own, told beside the earlier
        level = look_level(samples, planned)
        return Look(planned=planned, samples=samples, level=level, earlier=tuple(taken))
    promised = tuple(held["looks"]["planned"])
    most = max(one["samples"] for one in before)
    if samples in [one["samples"] for one in before]:  # the same look, with other options
        level = look_level(samples, promised)
        earlier = tuple(o for o in taken if o not in before or o["samples"] != samples)
        return Look(planned=promised, samples=samples, level=level, earlier=earlier)
    if samples not in promised or samples < most:
        said = ", ".join(map(str, promised))
        raise ConfigError(
            f"this model was evaluated with {most} continuations per test prompt, and the planned "
            f"looks are: {said}. Looking again at {samples} would raise the error of the verdict "
            "above 5% (two looks: 9%). Plan looks before the first (--looks 4,8,16), or draw other "
            "texts (--seed), which is a test of its own"
        )
    level = look_level(samples, promised)
    return Look(planned=promised, samples=samples, level=level, earlier=tuple(taken))


def _same(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    return all(before.get(key) == now.get(key) for key in _SAME)
