"""Every error levelhead raises on purpose, in one tree.

    LevelheadError                    base; str(error) is meant for people: value, limit, remedy
    ├── UserError                     the user's mistake: the command line exits 2, no traceback
    │   ├── ConfigError               an option out of range, options that contradict each other
    │   ├── PromptError               a prompt file, axis or subgroup that cannot be used
    │   ├── TextError                 perplexity text that is missing or too short
    │   ├── ModelError                a model that cannot be found, loaded, or yields NaN
    │   │   └── UnsupportedArchitectureError
    │   ├── CheckpointError           a pruned checkpoint damaged, newer, or of another model
    │   ├── ScorerError               an unknown toxicity scorer, or one that breaks its contract
    │   ├── ScoreTableError           a table of head scores that cannot be read
    │   ├── SelectionError            gamma, alpha or heads that cannot be satisfied
    │   ├── RunFolderError            a run folder that holds another run, or lacks a stage
    │   ├── MissingExtraError         an optional dependency is not installed
    │   └── PreflightError            several of these at once, found before a run starts
    └── UnreliableScoresError         the ranking asked for is noise: the command line exits 3

Exit codes: 0 done, 1 a broken limit, a failed check or an internal failure (70 in
`verify`, where 1 is a broken limit), 2 UserError, 3 UnreliableScoresError or `verify` cannot tell,
130 interrupted, 143 terminated.
"""


class LevelheadError(Exception):
    """Base of every error levelhead raises on purpose."""

    exit_code = 1


class UserError(LevelheadError):
    """The user's mistake: what was wrong, its value, the limit, and what to do."""

    exit_code = 2


class ConfigError(UserError):
    """An option is out of range, or options contradict each other."""


class PromptError(UserError):
    """A prompt file, axis or subgroup cannot be used."""


class TextError(UserError):
    """Perplexity text is missing or too short."""


class ModelError(UserError):
    """A model cannot be found or loaded, or it yields NaN."""


class UnsupportedArchitectureError(ModelError):
    """The model's family has no adapter in levelhead.models.architectures."""


class CheckpointError(UserError):
    """A pruned checkpoint is damaged, of a newer format, or of another model."""


class ScorerError(UserError):
    """A toxicity scorer is unknown, or returned something that is not a score per text."""


class ScoreTableError(UserError):
    """A table of head scores cannot be read."""


class SelectionError(UserError):
    """gamma, alpha or a list of heads cannot be satisfied."""


class RunFolderError(UserError):
    """A run folder holds another run, or lacks what a stage needs."""


class MissingExtraError(UserError):
    """An optional dependency is not installed; the message holds the install line."""

    extra: str | None = None
    """Its name in pyproject.toml, where there is one."""


class PreflightError(UserError):
    """Several things keep a run from starting; the message lists them."""

    def __init__(self, message: str, errors: tuple[UserError, ...] = ()) -> None:
        super().__init__(message)
        self.errors = errors


class UnreliableScoresError(LevelheadError):
    """The head ranking asked for is mostly sampling noise."""

    exit_code = 3


def missing_extra(feature: str, extra: str) -> MissingExtraError:
    """The error for an optional dependency that is not installed.

    Args:
        feature: what the user asked for, as the start of a sentence ("Reading GGUF files").
        extra: the name of the extra in pyproject.toml.
    """
    error = MissingExtraError(
        f"{feature} needs an optional dependency: pip install 'levelhead[{extra}]'"
    )
    error.extra = extra
    return error
