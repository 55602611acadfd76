"""What a build of shards is asked for. Imports nothing heavy: the command line shows these defaults."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from spe_dist.data.text.formats.recognise import FormatChoice
from spe_dist.data.text.languages import AUTO, check_language
from spe_dist.data.text.paragraphs import LinesChoice
from spe_dist.data.text.words import WordsChoice
from spe_dist.errors import ConfigError

DropChoice = Literal["exact", "near", "none"]
UnitChoice = Literal["auto", "sentences", "documents"]

MIN_WORDS = 3  # of a sentence
MIN_MAX_PIECES = 5  # [CLS], three words, [SEP]
MAX_MAX_PIECES = 32_767  # what the int16 positions of first pieces in a shard reach
# Where a record of an interrupted build is damaged.
CONTINUE_REMEDY = "the build cannot be continued: remove its folder .build, or overwrite it (--overwrite)"


@dataclass(frozen=True)
class BuildSettings:
    """Everything but the inputs and the vocabulary that the shards' bytes depend on."""

    unit: UnitChoice = "auto"
    lines: LinesChoice = "auto"
    words: WordsChoice = "auto"
    language: str = AUTO
    format: FormatChoice = "auto"
    text_field: str = "text"
    drop_duplicates: DropChoice = "exact"
    train_vocab: int | None = None
    do_lower_case: bool | None = None
    seed: int = 0
    held_out: float = 0.005
    block_sentences: int = 1_000
    shard_sentences: int = 100_000
    max_pieces: int = 128

    def __post_init__(self) -> None:
        for name, kind in (
            ("unit", UnitChoice),
            ("lines", LinesChoice),
            ("format", FormatChoice),
            ("drop_duplicates", DropChoice),
        ):
            if getattr(self, name) not in get_args(kind):
                choices = ", ".join(get_args(kind))
                raise ConfigError(f"{name}={getattr(self, name)!r} is unknown; choose one of {choices}")
        check_language(self.language)
        if self.unit == "sentences" and self.lines == "wrapped":
            raise ConfigError("lines=wrapped joins lines, unit=sentences takes each as a sentence; choose one of them")
        if not 0 <= self.held_out < 1:
            raise ConfigError(f"held_out={self.held_out} is not a share of the sentences; choose 0 <= held_out < 1")
        if self.max_pieces < MIN_MAX_PIECES:
            raise ConfigError(f"max_pieces={self.max_pieces} is too short for three words; choose 128, for example")
        if self.max_pieces > MAX_MAX_PIECES:
            raise ConfigError(f"max_pieces={self.max_pieces}: shards hold sentences of at most {MAX_MAX_PIECES:,}")
        if self.block_sentences < 1 or self.shard_sentences < self.block_sentences:
            raise ConfigError(
                f"block_sentences={self.block_sentences}, shard_sentences={self.shard_sentences}: a shard holds whole "
                "blocks, of at least one sentence; choose shard_sentences >= block_sentences >= 1"
            )
