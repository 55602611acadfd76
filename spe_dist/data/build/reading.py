"""What a build reads: files of any kind as sentences of words, and how their first lines decide on that.

What cannot be read is counted by reason (`Skips`), never dropped in silence.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

from spe_dist.data.build.settings import BuildSettings, UnitChoice
from spe_dist.data.text.files import FileSlice, Part, read_chunks
from spe_dist.data.text.formats.fields import no_text_message, text_at
from spe_dist.data.text.formats.recognise import (
    RECORD_UNITS,
    Format,
    described,
    json_format,
    recognise,
    record_lines,
    table_of,
    take_head,
)
from spe_dist.data.text.formats.tables import Table
from spe_dist.data.text.languages import AUTO, describe_language
from spe_dist.data.text.lines import (
    BAD_JSON,
    BLANK,
    NO_TEXT_FIELD,
    UNDECODABLE,
    Line,
    Skips,
    decode_line,
    encodable,
    read_lines,
    take_sample,
)
from spe_dist.data.text.markup import OTHER_MARKUP, Markup, looks_like_markup, markup_remover, without_markup
from spe_dist.data.text.paragraphs import (
    LinesChoice,
    full_line_columns,
    joined,
    paragraphs,
    text_paragraphs,
)
from spe_dist.data.text.sentences import split_sentences
from spe_dist.data.text.words import choose_words, make_splitter
from spe_dist.utils.wording import how_many

Unit = Literal["sentences", "documents"]

SAMPLED_FILES = 16
NAMED_FILES = 3  # of a format in the report, where there are several
MEASURED_LINES = 2_000
MEASURED_CHARACTERS = 5_000  # of a line
SENTENCES_OF_DOCUMENTS = 1.5  # in a line, on average, from which a line is no sentence
SENTENCES_OF_RECORDS = 1.1  # the same for cells of tables and texts inside records, which are seldom single sentences


_REMEDY = "repair it, get the file again, or have it read as it is (--format text)"


@dataclass(frozen=True)
class TextFile:
    """A file and how it is read."""

    path: Path
    format: Format
    full_line: int | None = None  # where its lines are wrapped: columns from which on one is full
    table: Table | None = None  # how it is a table, if it is one

    @property
    def has_records(self) -> bool:
        return self.format in RECORD_UNITS


@dataclass(frozen=True)
class TextReader:
    """Reads parts of files as sentences."""

    files: Sequence[TextFile]
    unit: Unit
    words: Literal["spaces", "tokenizer"]
    text_field: str = "text"
    language: str = AUTO

    @property
    def break_at(self) -> bytes:
        """Where parts are cut, so that none begins inside a paragraph."""
        is_plain = self.unit == "sentences" and all(file.format == "text" or file.has_records for file in self.files)
        return b"\n" if is_plain else b"\n\n"

    @cached_property
    def _by_path(self) -> dict[Path, TextFile]:
        return {file.path: file for file in self.files}

    def chunks(self, path: Path) -> Iterator[tuple[bytes, int]]:
        """(bytes, position in the file) of one of the files: its records as JSON lines, or its text as it is.

        Raises:
            DataError: it is damaged.
        """
        file = self._by_path[path]
        return record_lines(file.format, file.table, self.text_field, read_chunks(path), path, _REMEDY)

    def sentences(self, part: Part, skips: Skips, noticed: Counter[str]) -> Iterator[tuple[str, list[str]]]:
        """The sentences of a part in order: the text, without space around it, and its words."""
        splitter = make_splitter(self.words, self.language)
        for text in self._texts(part, skips, noticed):
            has_markup = looks_like_markup(text)
            if self.unit == "sentences":
                if has_markup:
                    noticed[OTHER_MARKUP] += 1
                yield text, splitter.words(text)
                continue
            for words in split_sentences(text, self.language):
                sentence = text[words[0].start : words[-1].end]
                if has_markup and looks_like_markup(sentence):
                    noticed[OTHER_MARKUP] += 1
                yield sentence, [word.text for word in words] if self.words == "tokenizer" else sentence.split()

    def _texts(self, part: Part, skips: Skips, noticed: Counter[str]) -> Iterator[str]:
        """Sentences or, where the unit is documents, paragraphs."""
        for lines in part.slices:
            file = self.files[lines.file]
            decoded = self._decoded(lines, skips)
            if file.has_records:
                yield from self._texts_of_json(decoded, file, skips)
                continue
            if file.format == "wikiextractor" or file.format == "wikitext":
                decoded = _unmarked(decoded, file.format, skips, noticed)
            if self.unit == "sentences":
                yield from (line.text for line in decoded if line.text and not line.is_bad)
            else:
                yield from map(joined, filter(None, paragraphs(decoded, file.full_line)))

    def _decoded(self, lines: FileSlice, skips: Skips) -> Iterator[Line]:
        """Stripped lines; blank ones and those that cannot be decoded are counted."""
        file = self.files[lines.file]
        n_lines = _n_lines(lines.data)
        whole, fault = decode_line(lines.data) if b"\0" not in lines.data else ("", "has zero bytes")
        if not fault:  # faster than line by line
            skips.lines += n_lines
            texts = list(map(str.strip, whole.split("\n")[:n_lines]))
            blank = texts.count("")
            if blank:
                skips.counts[BLANK] += blank
            yield from (Line(number, 0, text) for number, text in enumerate(texts, lines.first_line))
            return
        for number, data in enumerate(lines.data.split(b"\n")[:n_lines], lines.first_line):
            skips.lines += 1
            text, fault = decode_line(data)
            text = text.strip()
            if fault:
                skips.add_bad(UNDECODABLE, file.path, number, fault, RECORD_UNITS.get(file.format, "line"))
            elif not text:
                skips.counts[BLANK] += 1
            yield Line(number, 0, text, bool(fault))

    def _texts_of_json(self, lines: Iterable[Line], file: TextFile, skips: Skips) -> Iterator[str]:
        path, unit = file.path, RECORD_UNITS[file.format]
        for line in lines:
            if line.is_bad or not line.text:
                continue
            try:
                content = json.loads(line.text)
            except (ValueError, RecursionError) as error:
                skips.add_bad(BAD_JSON, path, line.number, str(error), unit)
                continue
            text = self._text_of(content)
            if text is None:
                skips.add_bad(NO_TEXT_FIELD, path, line.number, no_text_message(content, self.text_field), unit)
            elif not text.strip():
                skips.counts[BLANK] += 1
            elif self.unit == "sentences":
                yield from filter(None, map(str.strip, text.split("\n")))
            else:
                yield from (paragraph for _, paragraph in text_paragraphs(text))

    def _text_of(self, content: object) -> str | None:
        """The text of a JSON record: a string itself, or what an object holds under the text field."""
        text = content if isinstance(content, str) else text_at(content, self.text_field)
        return None if text is None else encodable(text)

    def sample(self, file: TextFile) -> list[str]:
        """The text of a file's first lines, line by line, blank ones included."""
        lines = take_sample(read_lines(file.path, Skips(), skip_bad=True, chunks=self.chunks(file.path)))[0]
        if file.format == "wikiextractor" or file.format == "wikitext":
            return without_markup(file.format, [line.text for line in lines])
        if not file.has_records:
            return [line.text.strip() for line in lines]
        as_sentences = TextReader([file], "sentences", self.words, self.text_field, self.language)
        texts: list[str] = []
        for line in lines:  # a blank line between records
            texts += [*as_sentences._texts_of_json([line], file, Skips()), ""]
        return texts


def _unmarked(lines: Iterator[Line], form: Markup, skips: Skips, noticed: Counter[str]) -> Iterator[Line]:
    """Lines without markup; a line that is nothing else becomes a blank one."""
    remove = markup_remover(form, skips.counts, noticed)
    for line in lines:
        yield line if line.is_bad or not line.text else line._replace(text=remove(line.text) or "")


def _n_lines(data: bytes) -> int:
    """Lines of data, the last one counted also without its line break."""
    return data.count(b"\n") + (not data.endswith(b"\n"))


def choose_reader(files: Sequence[Path], settings: BuildSettings) -> tuple[TextReader, list[str]]:
    """How files are read, and the decisions in words, by the settings and the first lines of the files.

    Raises:
        ConfigError: words is unknown.
        DataError: a file cannot be read, or words=spaces does not fit the text.
    """
    text_files = [_text_file(path, settings) for path in files]
    reader = TextReader(text_files, "sentences", "spaces", settings.text_field, settings.language)
    step = -(-len(files) // SAMPLED_FILES)
    samples = [reader.sample(file) for file in text_files[::step]]
    limit = _unit_limit(text_files, settings.text_field)
    unit, unit_reason = choose_unit(settings.unit, samples, settings.lines, limit, settings.language)
    texts = [text for sample in samples for text in sample if text]
    words, words_reason = choose_words(settings.words, texts, settings.language)
    language = describe_language(texts, settings.language)
    decisions = [f"unit: {unit} ({unit_reason})", f"words: {words} ({words_reason})", f"language: {language}"]
    decisions.insert(0, f"format: {_formats(text_files)}")
    if unit == "documents":
        text_files = [_with_full_line(reader, file, settings.lines) for file in text_files]
        n_wrapped = sum(1 for file in text_files if file.full_line is not None)
        if n_wrapped:
            decisions.append(f"lines: joined to paragraphs in {n_wrapped:,} of {how_many(len(files), 'file')}")
    return TextReader(text_files, unit, words, settings.text_field, settings.language), decisions


def _with_full_line(reader: TextReader, file: TextFile, lines: LinesChoice) -> TextFile:
    """The file with what its first lines say about wrapping; a JSON record is measured by itself when it is read."""
    if file.has_records or lines == "separate":
        return file
    return replace(file, full_line=full_line_columns(reader.sample(file), lines))


def _text_file(path: Path, settings: BuildSettings) -> TextFile:
    """The file and its format: as chosen, or what its first bytes show."""
    head, _ = take_head(read_chunks(path))
    form: Format
    if settings.format == "auto":
        form = recognise(head, path.name, settings.text_field)
    else:
        form = json_format(head) if settings.format == "json" else settings.format
    return TextFile(path, form, table=table_of(form, head, settings.text_field, path.name))


def _formats(files: Sequence[TextFile]) -> str:
    """What each file is read as, in words."""
    names: dict[str, list[str]] = {}
    for file in files:
        names.setdefault(described(file.format, file.table), []).append(file.path.name)
    parts = []
    for form, found in names.items():
        shown = f": {', '.join(found[:NAMED_FILES])}{', ...' if len(found) > NAMED_FILES else ''}"
        parts.append(f"{form} ({how_many(len(found), 'file')}{shown if len(names) > 1 else ''})")
    return "; ".join(parts)


def _unit_limit(files: Sequence[TextFile], text_field: str) -> float:
    """Sentences in a line, on average, from which a line is no sentence."""
    are_inside = all(file.has_records and (file.format != "jsonl" or "." in text_field) for file in files)
    return SENTENCES_OF_RECORDS if are_inside else SENTENCES_OF_DOCUMENTS


def choose_unit(
    unit: UnitChoice,
    samples: Sequence[Sequence[str]],
    lines: LinesChoice = "auto",
    limit: float = SENTENCES_OF_DOCUMENTS,
    language: str = AUTO,
) -> tuple[Unit, str]:
    """(the choice, the reason in words), measured on the first lines of some files.

    `documents` where lines hold more than `limit` sentences on average, or are wrapped.
    """
    if unit != "auto":
        return unit, "as asked"
    wrapped = [sample for sample in samples if full_line_columns(sample, lines) is not None]
    if 2 * sum(len(sample) for sample in wrapped) > sum(len(sample) for sample in samples):
        return "documents", "lines are wrapped"
    texts = [text for sample in samples for text in sample if text]
    measured = texts[:: -(-len(texts) // MEASURED_LINES) or 1]
    sentences = sum(1 for text in measured for _ in split_sentences(text[:MEASURED_CHARACTERS], language))
    mean = sentences / max(1, len(measured))
    return ("documents" if mean > limit else "sentences"), f"{mean:.2f} sentences a line in a sample"
