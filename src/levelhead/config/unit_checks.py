"""What can be asked of neurons and layers, which not every estimator and method knows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from levelhead.config.choices import AVERAGE, NO_REPAIR, UNIT_ESTIMATORS, UNIT_METHODS
from levelhead.errors import ConfigError

if TYPE_CHECKING:
    from levelhead.config.options import RunConfig


def check_unit(config: RunConfig) -> None:
    """Raise ConfigError for estimators, methods and options that the unit does not have."""
    if config.unit not in UNIT_ESTIMATORS:
        return
    bias, perplexity = UNIT_ESTIMATORS[config.unit]
    if config.estimator not in bias:
        raise ConfigError(
            f"--unit {config.unit} has no --estimator {config.estimator}; it has {', '.join(bias)}"
        )
    if config.ppl_estimator not in perplexity:
        asked = "--exhaustive" if config.exhaustive else f"--protect {config.protect}"
        had = "--exhaustive" if "exhaustive" in perplexity else f"--protect {perplexity[0]}"
        raise ConfigError(f"--unit {config.unit} has no {asked}; it has {had}")
    if config.method not in UNIT_METHODS or config.soft:
        asked = "--soft" if config.soft else f"--method {config.method}"
        raise ConfigError(
            f"--unit {config.unit} has no {asked}, which is for attention heads; it has --method "
            f"{', '.join(UNIT_METHODS)}"
        )
    if config.unit == "neuron" and config.two_way:
        raise ConfigError(
            "--unit neuron has no --two-way: effects are kept by template and subgroup alone"
        )


def check_average(config: RunConfig) -> None:
    """Raise ConfigError for options that are for heads that go, beside method average."""
    if config.method != AVERAGE:
        return
    asked = {"--soft": config.soft, "--core": config.core is not None}
    asked[f"--repair {config.repair}"] = config.repair != NO_REPAIR
    for flag, given in asked.items():
        if given:
            raise ConfigError(
                f"{flag} is for heads that are pruned, and --method {AVERAGE} prunes none: it "
                "changes what heads write; give one of the two"
            )


def check_repair(config: RunConfig) -> None:
    """Raise ConfigError where what is pruned leaves nothing to repair, or nothing to do it with."""
    if config.repair == NO_REPAIR:
        return
    if config.soft:
        raise ConfigError(
            f"--repair {config.repair} is for heads that are gone, and --soft scales them: it "
            "would scale them back to where they were; give one of the two"
        )
    if config.unit == "layer":
        raise ConfigError(
            f"--repair {config.repair} rebuilds what was removed from what stays in the same "
            "layer, and --unit layer removes all of it; leave out --repair"
        )
