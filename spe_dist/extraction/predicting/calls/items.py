"""What the Python call is given: texts, word lists, and sentences or records that carry entities, as sentences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from spe_dist.data.text.lines import encodable
from spe_dist.errors import DataError
from spe_dist.extraction.annotations.settings import AnnotationSettings
from spe_dist.extraction.corpora import corpus
from spe_dist.extraction.corpora.corpus import Document
from spe_dist.extraction.formats import read_record
from spe_dist.extraction.formats.notices import BLANK_WORDS
from spe_dist.extraction.predicting.given import ACROSS_GIVEN, check_entities
from spe_dist.extraction.predicting.json_input import place_words
from spe_dist.extraction.predicting.results import Sentence
from spe_dist.extraction.predicting.text_input import sentences_of_text

Item = str | Sequence[str] | Mapping[str, Any] | Sentence | corpus.Sentence
CARRIERS = (Mapping, Sentence, corpus.Sentence)


class Sentences(NamedTuple):
    """The sentences of an input."""

    starts: list[tuple[int, corpus.Sentence]]  # (first character, sentence)
    is_list: bool  # whether its result is a list, or the one sentence


def read_item(item: Item, number: int, language: str, notices: Counter[str]) -> Sentences:
    """The sentences of a text or a list of words; `notices` counts words that hold nothing.

    Raises:
        DataError: it is neither.
    """
    if isinstance(item, str):
        return Sentences(list(sentences_of_text(encodable(item), language=language)), True)
    if isinstance(item, CARRIERS):
        raise DataError(
            f"input {number} is {type(item).__name__}, which carries entities; give entities='given' for the relations "
            "between them, or its text or words to find all"
        )
    if not isinstance(item, Sequence) or not all(isinstance(word, str) for word in item):
        raise DataError(f"input {number} is {type(item).__name__}; give a text or a list of words")
    if blank := sum(not word.strip() for word in item):
        notices[BLANK_WORDS] += blank
    [(_, sentence)] = place_words([[encodable(word) for word in item]])
    return Sentences([(0, sentence)], False)


def read_given(item: Item, number: int, language: str, notices: Counter[str]) -> Sentences:
    """The sentences, with their entities, of what carries some: a result, a sentence of a corpus, a JSON object.

    `notices`: counts what reading an object decided or left out, such as entities outside of its text.

    Raises:
        DataError: it carries none, or some that do not lie in its words.
    """
    name = f"input {number}"
    if isinstance(item, Sentence):
        return Sentences([(item.start_char, _of_result(item))], False)
    if isinstance(item, corpus.Sentence):
        check_entities(item, name)
        return Sentences([(0, item)], False)
    if isinstance(item, Mapping):
        read = read_record(item, name, AnnotationSettings(language=language))
        [document] = read.documents
        for reason, times in read.notices.items():
            notices[reason.partition(" (first: ")[0]] += times  # one entry a reason, however many objects there are
        if document.cross_entities:
            notices[ACROSS_GIVEN] += len(document.cross_entities)
        return Sentences(list(placed(document)), read.format != "spert")
    raise DataError(
        f"{name} is {type(item).__name__}, which carries no entities; give objects such as "
        '{"tokens": [...], "entities": [{"type", "start", "end"}], "relations": []}, results or sentences of a corpus'
    )


def placed(document: Document) -> Iterator[tuple[int, corpus.Sentence]]:
    """(first character, sentence with text) for each sentence of a document.

    Characters are those of its text. Where it has none but words, the text is these joined by spaces, and sentences by
    line breaks.
    """
    position = 0
    for number, sentence in enumerate(document.sentences):
        if sentence.text is None or sentence.char_spans is None:
            [(_, joined)] = place_words([sentence.words])
            sentence = replace(sentence, text=joined.text, char_spans=joined.char_spans)
        assert sentence.text is not None
        yield document.starts[number] if document.starts else position, sentence
        position += len(sentence.text) + 1


def _of_result(result: Sentence) -> corpus.Sentence:
    """A result as a sentence of a corpus."""
    start = result.start_char
    return corpus.Sentence(
        result.words,
        tuple(corpus.Entity(e.start_word, e.end_word, e.type, probability=e.probability) for e in result.entities),
        text=result.text,
        char_spans=tuple((a - start, b - start) for a, b in result.word_offsets),
    )
