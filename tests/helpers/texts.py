"""Users' own text as spe predict reads it, and a check of the offsets that come with it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from spe_dist.data.text.lines import Skips
from spe_dist.extraction.predicting.inputs import read_inputs
from spe_dist.extraction.predicting.text_input import InputSettings, Located


def read(path: Path, skips: Skips | None = None, **settings: Any) -> list[Located]:
    return list(read_inputs([str(path)], InputSettings(**settings), skips))


def check_offsets(located: Iterable[Located], text: str) -> None:
    """Sentences and words stand in the text where they say, in order, and hold all of it but space."""
    position = 0
    for place, sentence in located:
        assert text[place.start : place.start + len(sentence.text)] == sentence.text
        for word, (start, end) in zip(sentence.words, sentence.char_spans, strict=True):
            assert sentence.text[start:end] == word != ""
            assert not text[position : place.start + start].strip()
            position = place.start + end
    assert not text[position:].strip()
