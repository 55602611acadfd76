"""Sentences of JSON records: JSON lines, and what is read as such (JSON lists, tables, Parquet).

A record is a text (a string) or an object. Of an object the first of these fields counts that it has: `sentences` (a
list of lists of words, or of strings), `tokens` or `words` (a list of words), the text field (split into sentences and
words), `sentText` (one sentence: words between spaces, of ordinary text those of the tokenizer). So all formats of
extraction corpora are read, and what `spe predict` has written; what is marked in them is no input. Beside words, a
text that holds them in order gives the offsets. A record without words gives one sentence without words.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from spe_dist.data.text.formats.fields import text_at, value_at
from spe_dist.data.text.lines import BAD_JSON, BLANK, Line, Skips, encodable, shown_name
from spe_dist.data.text.sentences import cut_words
from spe_dist.errors import DataError
from spe_dist.extraction.corpora.corpus import Sentence, Span
from spe_dist.extraction.formats.by_text.occurrences import looks_ordinary
from spe_dist.extraction.formats.notices import note_words
from spe_dist.extraction.formats.records import unique_fields
from spe_dist.extraction.predicting.text_input import (
    InputSettings,
    Located,
    Place,
    sentences_of,
    sentences_of_text,
)

NO_TEXT = "JSON records without text or words"
OTHER_TEXT = "JSON records whose text does not hold their words in order (offsets are in the words joined by spaces)"
ID_FIELDS = ("id", "doc_key", "doc_id", "orig_id", "articleId")
WORD_FIELDS = ("tokens", "words")
_WORD_LISTS = ("sentences", *WORD_FIELDS)  # fields whose lists are words, also where the text field is called so
NO_SENTENCE = (0, Sentence((), text="", char_spans=()))  # of a record without words: each record has an output line

_DECODER = json.JSONDecoder(object_pairs_hook=unique_fields)
DAMAGE_REMEDY = "repair it, get the file again, or give --input_format text if this is not JSON"


class RecordError(DataError):
    """A record that holds no text or words; the message lacks its place."""


class JsonReader:
    """Reads the records of one file.

    Raises:
        DataError: a record cannot be used and `skip_bad` is not set; the message names file and line (or item).
    """

    def __init__(
        self, file: str, settings: InputSettings, skips: Skips, documents: Iterator[int], unit: str = "line"
    ) -> None:
        self.file, self.settings, self.skips, self.documents = file, settings, skips, documents
        self.name, self.unit = shown_name(file), unit

    def read(self, lines: Iterable[Line]) -> Iterator[Located]:
        """The sentences of records, one a line."""
        for line in lines:
            if line.is_bad:
                continue
            if line.text.strip():
                yield from self._read_record(line)
            else:
                self.skips.counts[BLANK] += 1

    def _read_record(self, line: Line) -> Iterator[Located]:
        try:
            record = _DECODER.decode(line.text)
        except (ValueError, RecursionError) as error:
            detail = f"is not JSON: {error}"
            if _ends_with_comma(line.text):
                detail = "is a record with a comma behind it; take the commas away, or make the file one list in [ ]"
            self._fail(BAD_JSON, f"{self.unit} {line.number}", detail)
            return
        yield from self._sentences(record, line.number)

    def _sentences(self, record: Any, number: int) -> Iterator[Located]:
        try:
            found = list(sentences_of_record(record, self.settings, self.skips.counts)) or [NO_SENTENCE]
        except RecordError as error:
            self._fail(NO_TEXT, f"{self.unit} {number}", str(error))
            return
        document = next(self.documents)
        fields = record if isinstance(record, dict) else {}
        identity = next((fields[key] for key in ID_FIELDS if isinstance(fields.get(key), str | int)), None)
        for i, (start, sentence) in enumerate(found):
            note_words(sentence.words, self.skips.counts)
            yield Located(Place(self.file, document, identity, number, i, start), sentence)

    def _fail(self, reason: str, where: str, detail: str) -> None:
        if not self.settings.skip_bad:
            raise DataError(
                f"{self.name}, {where} {detail}; repair it, give --input_format text if this is not JSON, or leave "
                "such records out with --skip_bad"
            )
        self.skips.counts[reason] += 1
        self.skips.first_bad = self.skips.first_bad or f"{self.name}, {where} {detail}"


def _ends_with_comma(text: str) -> bool:
    """Whether a line is a whole object with a comma behind it, as in a list without its brackets."""
    try:
        value, end = _DECODER.raw_decode(text.strip())
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and text.strip()[end:].strip() == ","


def sentences_of_record(record: Any, settings: InputSettings, notices: Counter[str]) -> Iterator[tuple[int, Sentence]]:
    """(first character, sentence) for each sentence of a record.

    Raises:
        RecordError: it has neither text nor words.
    """
    if isinstance(record, str):
        return sentences_of_text(encodable(record), settings.tokenised, settings.language)
    if not isinstance(record, dict):
        raise RecordError(f"is {_shown(record)}, no text and no object with {settings.text_field!r} or 'tokens'")
    text = value_at(record, settings.text_field)
    if isinstance(text, list) and settings.text_field not in _WORD_LISTS:
        joined = text_at(record, settings.text_field)
        text = text if joined is None else joined
    has_text = isinstance(text, str)  # beside it, what is no list is a count
    given = [name for name in ("sentences", *WORD_FIELDS) if name in record]
    field = next((name for name in given if isinstance(record[name], list) or not has_text), None)
    if field is not None:
        words = record[field]
        is_nested = isinstance(words, list) and words and all(isinstance(inner, list) for inner in words)
        return _of_list(
            words if is_nested or field == "sentences" else [words], field, text, notices, settings.language
        )
    if isinstance(text, str):
        return sentences_of_text(encodable(text), settings.tokenised, settings.language)
    if text is not None or settings.text_field in record:
        raise RecordError(f"has {_shown(text)} under {settings.text_field!r}, no text")
    if isinstance(record.get("sentText"), str):
        text = encodable(record["sentText"])
        if looks_ordinary([text]):
            return _of_strings([text], settings.language)
        return sentences_of(text, tokenised=True)
    fields = ", ".join(map(repr, record)) or "none"
    raise RecordError(
        f"has neither text under {settings.text_field!r} nor words under 'tokens', 'words' or 'sentences' (its fields: "
        f"{_cut(fields)}); --text_field names another"
    )


def _of_list(
    sentences: Any, field: str, text: Any, notices: Counter[str], language: str
) -> Iterator[tuple[int, Sentence]]:
    """Sentences given as lists of words or as strings, placed in the record's text where that holds their words."""
    if not isinstance(sentences, list):
        raise RecordError(f"has {_shown(sentences)} under {field!r}, no list")
    if all(isinstance(sentence, str) for sentence in sentences) and field == "sentences":
        return _of_strings(sentences, language)
    for words in sentences:
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise RecordError(f"has {_shown(words)} under {field!r}, no list of words")
    text = encodable(text) if isinstance(text, str) else None
    parts = [part for words in sentences for part in cut_words(words)]
    return place_words([[encodable(word) for word in words] for words in parts], text, notices)


def _of_strings(sentences: Sequence[str], language: str) -> Iterator[tuple[int, Sentence]]:
    """Each string is one sentence whose words are still to be found."""
    start = 0
    for text in map(encodable, sentences):
        parts = list(sentences_of(text, language=language))
        if parts:
            first = parts[0][0]
            words = tuple(word for _, part in parts for word in part.words)
            spans = tuple(
                (offset - first + a, offset - first + b) for offset, part in parts for a, b in part.char_spans or ()
            )
            yield start + first, Sentence(words, text=text[first : first + spans[-1][1]], char_spans=spans)
        else:
            yield start, Sentence((), text="", char_spans=())
        start += len(text) + 1


def place_words(
    sentences: Sequence[Sequence[str]], text: str | None = None, notices: Counter[str] | None = None
) -> Iterator[tuple[int, Sentence]]:
    """Sentences of given words, placed in `text` where that holds them in order, otherwise in the words joined.

    A text that does not hold them is counted among `notices`.
    """
    found = find_words([word for words in sentences for word in words], text) if text is not None else None
    if text is None or found is None:
        if text is not None and notices is not None:
            notices[OTHER_TEXT] += 1
        joined = [" ".join(words) for words in sentences]
        start = 0
        for words, sentence_text in zip(sentences, joined, strict=True):
            yield start, Sentence(tuple(words), text=sentence_text, char_spans=_joined_spans(words))
            start += len(sentence_text) + 1
        return
    done = position = 0
    for words in sentences:
        spans = found[done : done + len(words)]
        done += len(words)
        start, end = (spans[0][0], spans[-1][1]) if spans else (position, position)
        position = end
        own = tuple((a - start, b - start) for a, b in spans)
        yield start, Sentence(tuple(words), text=text[start:end], char_spans=own)


def find_words(words: Sequence[str], text: str) -> list[Span] | None:
    """Where the words stand in the text, one behind another with nothing but space between; None if they do not."""
    spans: list[Span] = []
    position = 0
    for word in words:
        start = text.find(word, position)
        if start < 0 or text[position:start].strip():
            return None
        position = start + len(word)
        spans.append((start, position))
    return spans


def _joined_spans(words: Sequence[str]) -> tuple[Span, ...]:
    spans = []
    position = 0
    for word in words:
        spans.append((position, position + len(word)))
        position += len(word) + 1
    return tuple(spans)


def _shown(value: Any) -> str:
    return _cut(json.dumps(value, ensure_ascii=False, default=repr))


def _cut(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:77]}..."
