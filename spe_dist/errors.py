"""Errors that a user can cause and correct.

Each message names the value at fault, the reason and the remedy. Everything here is a ValueError, so that a caller
who wants no detail catches one type; what only we can get wrong is an assert.
"""


class SpeError(ValueError):
    """Any input, setting or environment that a user can correct."""


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
    """Training that went wrong while it ran: losses that are no numbers, updates that are skipped again and again."""
