"""Errors that a user can cause and correct.

Each message names the value at fault, the reason and the remedy. Everything here is a ValueError, so that a caller
who wants no detail catches one type; what only we can get wrong is an assert.
"""

# Control characters, and marks that reorder a line, as messages show them. Names in a message may come from files.
_TURNING = (*range(0x202A, 0x202F), *range(0x2066, 0x206A))
SHOWN_CONTROLS = {code: repr(chr(code))[1:-1] for code in (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029, *_TURNING)}


class SpeError(ValueError):
    """Any input, setting or environment that a user can correct.

    Each argument is a line of the message, whatever the names in it hold.
    """

    def __str__(self) -> str:
        return "\n".join(str(line).translate(SHOWN_CONTROLS) for line in self.args)


class ConfigError(SpeError):
    """A setting that is unknown, out of range or contradicts another."""


class DataError(SpeError):
    """Text, a vocabulary or shards that are missing, damaged or do not fit the run."""


class CheckpointError(SpeError):
    """A checkpoint that is missing, damaged or belongs to another run."""


class LaunchError(SpeError):
    """Launcher variables, ranks, ports or devices that do not fit together."""


class DivergenceError(RuntimeError):
    """Ranks that should hold the same state do not; no setting could correct that."""


class TrainingFailure(RuntimeError):
    """Training that went wrong while it ran."""


class UnstableTraining(TrainingFailure):
    """Losses, gradients or state that are no finite numbers, or a loss that jumped. All ranks raise it together.

    Attributes:
        kind: "loss", "state", "skipped", "spike" or "evaluation".
        step: at which it happened, as metrics.jsonl counts steps.
        why: what was found.
    """

    def __init__(self, kind: str, step: int, why: str, remedy: str = "") -> None:
        super().__init__(f"{why}{'. ' if remedy else ''}{remedy}")
        self.kind = kind
        self.step = step
        self.why = why
