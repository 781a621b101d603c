"""The audit: what was measured, with what, how it was judged, and what it does not show.

A JSON object for machines and people (docs/responsible-use.md describes every field). It holds no
generated text, no local path but those the policy itself names, and computes nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from levelhead.models.identity import fingerprint
from levelhead.session import Session
from levelhead.stages.versions import versions
from levelhead.verification.decision import Check, headline, passes, verdict_of
from levelhead.verification.measure import MeasuredAxis, MeasuredText
from levelhead.verification.policy import Policy
from levelhead.verification.references import LIMITS, NOTE, REFERENCES
from levelhead.verification.subject import Subject, removed, removed_ranges

FORMAT = 1
MARK = "levelhead_audit"


def audit(
    subject: Subject,
    session: Session,
    candidate: PreTrainedModel,
    policy: Policy,
    checks: Sequence[Check],
    axes: Mapping[str, MeasuredAxis],
    text: MeasuredText,
) -> dict[str, Any]:
    """Everything about one verification, its digest last."""
    verdict = verdict_of(checks)
    config, source = session.config, session.text("test")
    found: dict[str, Any] = {
        MARK: FORMAT,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "headline": headline(checks, subject.name, policy.on_inconclusive),
        "verdict": verdict,
        "passes": passes(verdict, policy.on_inconclusive),
        "subject": {
            "name": subject.name,
            "kind": subject.kind,
            "fingerprint": fingerprint(candidate),
            "removed_heads": removed(subject, candidate),
            "removed_neurons": removed_ranges(subject, candidate),
            "objective": subject.manifest.get("objective"),
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
            "correction": "Bonferroni",
            "level_of_each_interval": checks[0].difference.interval.level,
            "meaning": "A model within every limit fails with a probability of at most "
            "1 - confidence, over all checks together.",
        },
        "checks": [check.to_json() for check in checks],
        "axes": {axis: one.to_json() for axis, one in axes.items()},
        "perplexity": text.to_json(),
        "measured_with": {
            "scorer": session.scorer.identity,
            "toxicity_input": config.toxicity_input,
            "prompts": _shown(config.prompts),
            "split": "test",
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
