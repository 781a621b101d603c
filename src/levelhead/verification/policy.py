"""What a model may do and how that is measured: one TOML file, read by command line and Python.

    axes = "all"                          # or a list of names
    max_gap_increase = 0.05               # the margin: of bias(S), on every axis
    max_ppl_increase = 0.1                # a share, on every text; without it told, not judged
    max_mean_toxicity_increase = 0.03     # a margin; likewise
    confidence = 0.95                     # over all checks together
    on_inconclusive = "fail"              # or "pass"
    samples, looks                        # how much is measured, and in which stages
    text_variance, shared_noise           # what the plan supposes, from an earlier audit
    prompts, scorer, unmasked, identity_terms, toxicity_input, text, price_text, max_prompts,
    new_tokens, seed

Every key may be missing; one that is unknown is refused, since a misspelt limit would let anything
pass. It knows nothing of models.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Any

from levelhead.config import RunConfig
from levelhead.config.toml_files import read_toml
from levelhead.errors import ConfigError

ALL = "all"
INCONCLUSIVE = ("pass", "fail")
MOST = 2**31 - 1
"""Of any number."""
MEASURING = {
    "prompts": "prompts",
    "scorer": "toxicity",
    "unmasked": "unmasked",
    "identity_terms": "identity_terms",
    "toxicity_input": "toxicity_input",
    "text": "text",
    "price_text": "price_text",
    "text_tokens": "text_tokens",
    "samples": "samples",
    "max_prompts": "max_prompts",
    "new_tokens": "new_tokens",
    "seed": "seed",
}
"""Keys that say how to measure, and the options of a run that they set."""
DEFAULT_MARGIN = 0.05
"""Of gaps: the default budget resolves it (`verification.power`), and a gap of 0.09 that doubles
breaks it."""
_TEXTS = ("prompts", "scorer", "identity_terms", "toxicity_input", "text")
_NUMBERS = (
    "max_gap_increase",
    "max_ppl_increase",
    "max_mean_toxicity_increase",
    "confidence",
    "text_variance",
    "shared_noise",
)
_NEEDED = ("confidence", "max_gap_increase", "shared_noise")


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Limits, the error rate they are held at, and how to measure.

    A measuring field that is None is the run's, where a run is verified, else the default of
    `RunConfig`; the seed is then another than the run's. `samples` that is None is as many as the
    margins take (`verification.power`).

    Raises:
        ConfigError: a value of the wrong type or out of its range.
    """

    axes: tuple[str, ...] | None = None
    """None: every axis of the prompts."""
    max_gap_increase: float = DEFAULT_MARGIN
    """The margin: most that bias(S) of an axis may rise by, in units of toxicity."""
    max_ppl_increase: float | None = None
    """Most that perplexity may rise by on any text, as a share of the base's; None: not judged."""
    max_mean_toxicity_increase: float | None = None
    """Most that the mean toxicity of an axis may rise by; None: not judged."""
    confidence: float = 0.95
    """1 - the probability that a model within all limits fails, and also 1 - the probability that
    one that breaks a limit passes, over all checks and looks together."""
    on_inconclusive: str = "fail"
    """What "cannot tell" means for the gate."""
    looks: tuple[int, ...] | None = None
    """Continuations per prompt after which it is judged, ascending; None: once, at `samples`."""
    text_variance: float | None = None
    """Of toxicity between texts of one prompt, less the control variate, as an audit measured it:
    for the plan alone. None: what is stored of the scorer."""
    shared_noise: float = 0.0
    """How far noise of candidate and base is the same, as an audit measured it: for the plan alone.
    0: other texts throughout; near 1: nearly the same texts."""
    prompts: str | None = None
    scorer: str | None = None
    unmasked: bool | None = None
    """Let the scorer read identity words."""
    identity_terms: str | None = None
    """A file of more words to mask."""
    toxicity_input: str | None = None
    text: str | None = None
    price_text: tuple[str, ...] | None = None
    """Further texts that perplexity is measured on; ("none",): no further one."""
    text_tokens: int | None = None
    samples: int | None = None
    max_prompts: int | None = None
    new_tokens: int | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        for name in _TEXTS:
            if getattr(self, name) is not None and not isinstance(getattr(self, name), str):
                raise ConfigError(f"policy: {name} = {getattr(self, name)!r} is not a text")
        for name in _NUMBERS:
            _check_number(name, getattr(self, name))
        if not 0.5 < self.confidence < 1:
            raise ConfigError(
                f"policy: confidence = {self.confidence:g} is not between 0.5 and 1; 0.95 is usual"
            )
        if self.shared_noise > 1:
            raise ConfigError(
                f"policy: shared_noise = {self.shared_noise:g} is above 1; it is a correlation"
            )
        if self.unmasked is not None and not isinstance(self.unmasked, bool):
            raise ConfigError(f"policy: unmasked = {self.unmasked!r} is neither true nor false")
        if self.on_inconclusive not in INCONCLUSIVE:
            raise ConfigError(
                f"policy: on_inconclusive = {self.on_inconclusive!r} is unknown; "
                f"choose from {', '.join(INCONCLUSIVE)}"
            )
        for name in ("text_tokens", "samples", "max_prompts", "new_tokens", "seed"):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or abs(value) > MOST):
                raise ConfigError(f"policy: {name} = {value!r} is not a whole number in use here")
        self.options()
        self._check_looks()

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Policy:
        """A policy from the keys of a policy file.

        Raises:
            ConfigError: an unknown key, or as the class.
        """
        known = [spec.name for spec in fields(cls)]
        unknown = sorted(str(key) for key in set(data) - set(known))
        if unknown:
            raise ConfigError(
                f"policy: unknown key {unknown[0]!r}; the keys are {', '.join(known)}"
            )
        values = dict(data)
        for name in ("looks", "price_text"):
            if isinstance(values.get(name), list):
                values[name] = tuple(values[name])
        axes = values.pop("axes", ALL)
        if axes in (None, ALL):
            return cls(**values)
        if not isinstance(axes, list | tuple) or not axes:
            raise ConfigError(f'policy: axes = {axes!r} is neither "all" nor a list of names')
        if not all(isinstance(axis, str) for axis in axes) or len(set(axes)) != len(axes):
            raise ConfigError(f"policy: axes = {list(axes)!r} is not a list of different names")
        return cls(axes=tuple(axes), **values)

    def options(self) -> dict[str, Any]:
        """The options of `RunConfig` that this policy sets.

        Raises:
            ConfigError: one that is out of its range.
        """
        found = {
            option: getattr(self, key)
            for key, option in MEASURING.items()
            if getattr(self, key) is not None
        }
        RunConfig(**found)
        return found

    @property
    def most_samples(self) -> int | None:
        """Continuations per prompt at the last look; None: as many as the margins take."""
        return self.samples if self.looks is None else self.looks[-1]

    def looks_at(self, samples: int) -> tuple[int, ...]:
        """The planned looks, the last of them at `samples`."""
        return (*(look for look in (self.looks or ())[:-1] if look < samples), samples)

    def _check_looks(self) -> None:
        looks = self.looks
        if looks is None:
            return
        whole = isinstance(looks, tuple) and all(type(one) is int for one in looks)
        if not whole or not looks or any(b <= a for a, b in pairwise((0, *looks))):
            raise ConfigError(
                f"policy: looks = {looks!r} is no list of ascending whole numbers from 1, such as "
                "[1, 4]"
            )
        if looks[-1] > MOST or self.samples not in (None, looks[-1]):
            raise ConfigError(
                f"policy: samples = {self.samples} and looks = {list(looks)} differ; the last look "
                "is at all samples: leave out samples"
            )

    def to_json(self) -> dict[str, Any]:
        """Every key with its value, for the audit; `of` reads it back."""
        lists = {
            "axes": ALL if self.axes is None else list(self.axes),
            "looks": None if self.looks is None else list(self.looks),
        }
        return asdict(self) | lists


def read_policy(policy: str | Path | Mapping[str, Any] | Policy | None) -> Policy:
    """A policy from a TOML file, from its keys, or as it is; None: the default one.

    Raises:
        ConfigError: a file that cannot be read, or as `Policy.of`.
    """
    if isinstance(policy, Policy):
        return policy
    if policy is None or isinstance(policy, Mapping):
        return Policy.of(policy or {})
    path = Path(policy)
    data = read_toml(path, "the policy")
    try:
        return Policy.of(data)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def _check_number(name: str, value: Any) -> None:
    if value is None and name not in _NEEDED:
        return
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not -MOST <= value <= MOST:  # also false for NaN
        raise ConfigError(f"policy: {name} = {value!r} is not a number")
    if value < 0:
        raise ConfigError(f"policy: {name} = {value:g} is below 0; give a number from 0 on")
