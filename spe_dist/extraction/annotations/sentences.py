"""The sentences and words of an annotated text: those of the file where it has them, else those of raw text."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise

from spe_dist.data.text.languages import AUTO
from spe_dist.errors import DataError
from spe_dist.extraction.annotations.document import AnnotatedDocument, Characters
from spe_dist.extraction.annotations.settings import AnnotationSettings
from spe_dist.extraction.predicting.text_input import sentences_of, sentences_of_text

BLANK_TOKENS = "tokens that are empty or white space, left out"


def find_words(
    document: AnnotatedDocument, settings: AnnotationSettings, notices: Counter[str]
) -> list[list[Characters]]:
    """For each sentence that has words their places in the document's text.

    Raises:
        DataError: the tokens or sentences of the file are not in order, or lie outside the text.
    """
    text = document.text
    _check(document.tokens, "tokens", document)
    _check(document.sentences, "sentences", document)
    if document.tokens is None:
        if document.sentences is None:
            return list(filter(None, _words_of_text(text, settings.language)))
        return list(filter(None, _words_in(text, document.sentences, settings.language)))
    tokens = [(start, end) for start, end in document.tokens if text[start:end].strip()]
    notices[BLANK_TOKENS] += len(document.tokens) - len(tokens)
    if document.sentences is None:
        borders = [words[0][0] for words in _words_of_text(text, settings.language) if words]
    else:
        borders = [start for start, _ in document.sentences]
    return _grouped(tokens, borders)


def sentence_borders(text: str, language: str = AUTO) -> list[Characters]:
    """Where the sentences of a text are, from their first word to their last."""
    return [(words[0][0], words[-1][1]) for words in _words_of_text(text, language) if words]


def _words_of_text(text: str, language: str) -> Iterator[list[Characters]]:
    for start, sentence in sentences_of_text(text, language=language):
        yield [(start + a, start + b) for a, b in sentence.char_spans or ()]


def _words_in(text: str, sentences: Sequence[Characters], language: str) -> Iterator[list[Characters]]:
    """The words of given sentences."""
    for first, end in sentences:
        yield [
            (first + start + a, first + start + b)
            for start, part in sentences_of(text[first:end], language=language)
            for a, b in part.char_spans or ()
        ]


def _grouped(tokens: Sequence[Characters], borders: Sequence[int]) -> list[list[Characters]]:
    """Tokens by the sentence in which they begin; `borders` are the first characters of sentences."""
    sentences: list[list[Characters]] = []
    last = -1
    for token in tokens:
        number = bisect_right(borders, token[0])
        if not sentences or number != last:
            sentences.append([])
        sentences[-1].append(token)
        last = number
    return sentences


def _check(places: Sequence[Characters] | None, name: str, document: AnnotatedDocument) -> None:
    """That places are in order, do not overlap and lie in the text."""
    for (_, before), (start, end) in pairwise([(0, 0), *(places or ())]):
        if not before <= start <= end <= len(document.text):
            raise DataError(
                f"{document.origin or document.key}: {name} has [{start}, {end}], but they must be in order, without "
                f"overlap and inside the text of {len(document.text):,} characters; repair them, or leave {name} out: "
                "then they are found in the text"
            )
