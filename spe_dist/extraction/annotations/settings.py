"""How annotations by character become sentences of words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from spe_dist.data.text.languages import AUTO, check_language
from spe_dist.errors import ConfigError

CutWords = Literal["widen", "drop"]
ConceptPairs = Literal["all", "nearest"]


@dataclass(frozen=True)
class AnnotationSettings:
    """Where the file leaves a choice.

    Attributes:
        cut_words: what becomes of a span that covers a part of a word: "widen" it to whole words, or "drop" it.
        concept_pairs: between which mentions a relation of two concepts holds (PubTator, DocRED): "all" pairs in a
            sentence, or the "nearest" one.
        language: of the texts, for their words and sentence ends where the file does not have them.

    Raises:
        ConfigError: a choice or the language is unknown.
    """

    cut_words: CutWords = "widen"
    concept_pairs: ConceptPairs = "all"
    language: str = AUTO

    def __post_init__(self) -> None:
        check_language(self.language)
        for name, choices in (("cut_words", ("widen", "drop")), ("concept_pairs", ("all", "nearest"))):
            value = getattr(self, name)
            if value not in choices:
                raise ConfigError(f"{name}={value!r} is unknown; choose one of {', '.join(choices)}")


DEFAULTS = AnnotationSettings()
