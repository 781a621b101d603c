"""The audit: what was measured, with what, how it was judged, and what it does not show.

A JSON object for machines and people (docs/responsible-use.md describes every field). It holds no
generated text, no local path but those the policy itself names, and computes nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from levelhead.evaluation.verdict import erased
from levelhead.models.average_edit import average_of
from levelhead.models.identity import fingerprint
from levelhead.models.repair import repair_of
from levelhead.session import Session
from levelhead.stages.versions import versions
from levelhead.verification.decision import Check, exit_code, headline, passes, verdict_of
from levelhead.verification.measure import MeasuredAxis, MeasuredText, words
from levelhead.verification.policy import Policy
from levelhead.verification.power import GatePower
from levelhead.verification.references import LIMITS, NOTE, REFERENCES
from levelhead.verification.subject import Subject, removed, removed_ranges

FORMAT = 2
MARK = "levelhead_audit"


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What was measured and judged, by the last look."""

    checks: tuple[Check, ...]
    axes: Mapping[str, MeasuredAxis]
    planned: tuple[int, ...]
    looks: tuple[Mapping[str, Any], ...]
    """Those that were taken: samples, and the verdict then."""

    @property
    def erasure(self) -> list[str]:
        """Where the candidate clearly names the groups less often."""
        return [
            f"{axis}: {sentence}"
            for axis, one in self.axes.items()
            for sentence in erased(one.mentions, "candidate")
        ]

    def wide_margins(self, margin: float) -> list[str]:
        """Where the margin lets the base model's own gap double."""
        small = {
            axis: x.corrected_bias for axis, x in self.axes.items() if x.corrected_bias < margin
        }
        if not small:
            return []
        gaps = ", ".join(f"{axis} {max(0.0, value):.4f}" for axis, value in small.items())
        return [
            f"The margin of {margin:g} is more than the base model's own measured gap, corrected "
            f"for noise ({gaps}): a candidate whose gap doubled may pass there. A smaller margin "
            "takes more samples."
        ]


def audit(
    subject: Subject,
    session: Session,
    candidate: PreTrainedModel,
    policy: Policy,
    judged: Found,
    price: Sequence[MeasuredText],
    power: GatePower,
) -> dict[str, Any]:
    """Everything about one verification, its digest last."""
    checks, axes = judged.checks, judged.axes
    verdict = verdict_of(checks)
    told = words(axes)
    erasure = judged.erasure
    config, source = session.config, session.text("test")
    found: dict[str, Any] = {
        MARK: FORMAT,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "headline": headline(checks, subject.name, policy.on_inconclusive, erasure),
        "verdict": verdict,
        "passes": passes(verdict, policy.on_inconclusive),
        "exit_code": exit_code(verdict, policy.on_inconclusive),
        "warnings": [*erasure, *judged.wide_margins(policy.max_gap_increase)],
        "subject": {
            "name": subject.name,
            "kind": subject.kind,
            "fingerprint": fingerprint(candidate),
            "removed_heads": removed(subject, candidate),
            "removed_neurons": removed_ranges(subject, candidate),
            "objective": subject.manifest.get("objective"),
            "repair": repair_of(candidate) or subject.manifest.get("repair"),
            "average": average_of(candidate) or subject.manifest.get("average"),
            "sha256": subject.manifest.get("sha256"),
        },
        "base": {
            "name": _shown(session.model_name),
            "revision": session.base.revision,
            "fingerprint": session.base.fingerprint,
        },
        "policy": policy.to_json(),
        "error_rate": {
            "confidence": policy.confidence,
            "checks": len(checks),
            "passing": {"error": 1 - policy.confidence, "correction": "intersection-union"},
            "failing": {"error": 1 - policy.confidence, "correction": "Bonferroni"},
            "meaning": "A model within every limit fails, and one that breaks a limit passes, with "
            "a probability of at most 1 - confidence, over all checks and looks together.",
        },
        "power": power.to_json(),
        "looks": {"planned": list(judged.planned), "taken": [dict(one) for one in judged.looks]},
        "checks": [check.to_json() for check in checks],
        "axes": {
            axis: {"verdict": told[axis].verdict, "reason": told[axis].reason, **one.to_json()}
            for axis, one in axes.items()
        },
        "perplexity": price[0].to_json(),
        "price": [one.to_json() for one in price],
        "measured_with": {
            "scorer": session.scorer.identity,
            "toxicity_input": config.toxicity_input,
            "prompts": _shown(config.prompts),
            "split": "test",
            "masked": not config.unmasked,
            "identity_terms": config.identity_terms and _shown(config.identity_terms),
            "samples": config.samples,
            "new_tokens": config.new_tokens,
            "prompt_tokens": config.prompt_tokens,
            "chat_template": config.chat_template,
            "seed": config.seed,
            "prompt_seed": config.prompt_seed,
            "common_random_numbers": True,
            "text": {"name": source.name, "sha256": source.sha256},
            "dtype": str(session.base.model.dtype).removeprefix("torch."),
            "device": session.base.model.device.type,
        },
        "versions": versions(),
        "limits": list(LIMITS),
        "documentation": {"note": NOTE, "pointers": [dict(one) for one in REFERENCES]},
    }
    return found | {"digest": digest(found)}


def _shown(name: str) -> str:
    """Names as they are, of local files the last part: paths say where people work."""
    kind, _, folder = name.partition(":")
    path = Path(folder or name)
    return f"{kind}:" * bool(folder) + path.name if path.exists() else name


def digest(content: Mapping[str, Any]) -> str:
    """SHA-256 of the canonical JSON (sorted keys, no white space, UTF-8) without `digest`."""
    rest = {key: value for key, value in content.items() if key != "digest"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
