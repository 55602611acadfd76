"""What a build reads: files of any kind as sentences of words, and how their first lines decide on that.

What cannot be read is counted by reason (`Skips`), never dropped in silence.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from spe_dist.data.build.settings import BuildSettings, FormatChoice, UnitChoice
from spe_dist.data.text.files import FileSlice, Part
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
from spe_dist.data.text.markup import Markup, markup_remover, recognise_markup, without_markup
from spe_dist.data.text.paragraphs import (
    LinesChoice,
    full_line_characters,
    joined,
    paragraphs,
    text_paragraphs,
)
from spe_dist.data.text.sentences import split_sentences
from spe_dist.data.text.words import choose_words, make_splitter
from spe_dist.utils.wording import how_many

Unit = Literal["sentences", "documents"]
Format = Literal["text", "jsonl", "wikiextractor", "wikitext"]

SAMPLED_FILES = 16
MEASURED_LINES = 2_000
MEASURED_CHARACTERS = 5_000  # of a line
SENTENCES_OF_DOCUMENTS = 1.5  # in a line, on average, from which a line is no sentence


@dataclass(frozen=True)
class TextFile:
    """A file and how it is read."""

    path: Path
    format: Format
    full_line: int | None = None  # where its lines are wrapped: characters from which on one is full


@dataclass(frozen=True)
class TextReader:
    """Reads parts of files as sentences."""

    files: Sequence[TextFile]
    unit: Unit
    words: Literal["spaces", "tokenizer"]
    text_field: str = "text"

    @property
    def break_at(self) -> bytes:
        """Where parts are cut, so that none begins inside a paragraph."""
        is_plain = self.unit == "sentences" and all(file.format in ("text", "jsonl") for file in self.files)
        return b"\n" if is_plain else b"\n\n"

    def sentences(self, part: Part, skips: Skips, noticed: Counter[str]) -> Iterator[tuple[str, list[str]]]:
        """The sentences of a part in order: the text, without space around it, and its words."""
        splitter = make_splitter(self.words)
        for text in self._texts(part, skips, noticed):
            if self.unit == "sentences":
                yield text, splitter.words(text)
                continue
            for words in split_sentences(text):
                sentence = text[words[0].start : words[-1].end]
                yield sentence, [word.text for word in words] if self.words == "tokenizer" else sentence.split()

    def _texts(self, part: Part, skips: Skips, noticed: Counter[str]) -> Iterator[str]:
        """Sentences or, where the unit is documents, paragraphs."""
        for lines in part.slices:
            file = self.files[lines.file]
            if file.format == "jsonl":
                yield from self._texts_of_json(self._decoded(lines, skips), file.path, skips)
                continue
            decoded = self._decoded(lines, skips)
            if file.format != "text":
                decoded = _unmarked(decoded, file.format, skips, noticed)
            if self.unit == "sentences":
                yield from (line.text for line in decoded if line.text and not line.is_bad)
            else:
                yield from map(joined, filter(None, paragraphs(decoded, file.full_line)))

    def _decoded(self, lines: FileSlice, skips: Skips) -> Iterator[Line]:
        """Stripped lines; blank ones and those that cannot be decoded are counted."""
        for number, data in enumerate(lines.data.split(b"\n")[: _n_lines(lines.data)], lines.first_line):
            skips.lines += 1
            text, fault = decode_line(data)
            text = text.strip()
            if fault:
                skips.add_bad(UNDECODABLE, self.files[lines.file].path, number, fault)
            elif not text:
                skips.counts[BLANK] += 1
            yield Line(number, 0, text, bool(fault))

    def _texts_of_json(self, lines: Iterator[Line], path: Path, skips: Skips) -> Iterator[str]:
        for line in lines:
            if line.is_bad or not line.text:
                continue
            try:
                content = json.loads(line.text)
            except (ValueError, RecursionError) as error:
                skips.add_bad(BAD_JSON, path, line.number, str(error))
                continue
            text = self._text_of(content)
            if text is None:
                skips.add_bad(NO_TEXT_FIELD, path, line.number, f"no text under {self.text_field!r}")
            elif not text.strip():
                skips.counts[BLANK] += 1
            elif self.unit == "sentences":
                yield from filter(None, map(str.strip, text.split("\n")))
            else:
                yield from (paragraph for _, paragraph in text_paragraphs(text))

    def _text_of(self, content: object) -> str | None:
        """The text of a JSON record: a string itself, or what an object holds under the text field."""
        text = content.get(self.text_field) if isinstance(content, dict) else content
        return encodable(text) if isinstance(text, str) else None

    def sample(self, file: TextFile) -> list[str]:
        """The text of a file's first lines, line by line, blank ones included."""
        lines = take_sample(read_lines(file.path, Skips(), skip_bad=True))[0]
        if file.format == "text":
            return [line.text.strip() for line in lines]
        if file.format != "jsonl":
            return without_markup(file.format, [line.text for line in lines])
        as_sentences = TextReader([file], "sentences", self.words, self.text_field)
        texts: list[str] = []
        for line in lines:  # a blank line between records
            texts += [*as_sentences._texts_of_json(iter([line]), file.path, Skips()), ""]
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
    text_files = [TextFile(path, _format(path, settings.format)) for path in files]
    reader = TextReader(text_files, "sentences", "spaces", settings.text_field)
    step = -(-len(files) // SAMPLED_FILES)
    samples = [reader.sample(file) for file in text_files[::step]]
    unit, unit_reason = choose_unit(settings.unit, samples, settings.lines)
    words, words_reason = choose_words(settings.words, [text for sample in samples for text in sample if text])
    decisions = [f"unit: {unit} ({unit_reason})", f"words: {words} ({words_reason})"]
    formats = Counter(file.format for file in text_files)
    if set(formats) != {"text"}:
        counts = ", ".join(f"{name} ({how_many(count, 'file')})" for name, count in formats.items())
        decisions.insert(0, f"format: {counts}")
    if unit == "documents":
        text_files = [_with_full_line(reader, file, settings.lines) for file in text_files]
        n_wrapped = sum(1 for file in text_files if file.full_line is not None)
        if n_wrapped:
            decisions.append(f"lines: joined to paragraphs in {n_wrapped:,} of {how_many(len(files), 'file')}")
    return TextReader(text_files, unit, words, settings.text_field), decisions


def _with_full_line(reader: TextReader, file: TextFile, lines: LinesChoice) -> TextFile:
    """The file with what its first lines say about wrapping; a JSON record is measured by itself when it is read."""
    if file.format == "jsonl" or lines == "separate":
        return file
    return replace(file, full_line=full_line_characters(reader.sample(file), lines))


def _format(path: Path, choice: FormatChoice) -> Format:
    """As chosen, or what the first line that is not blank shows: JSON, markup, or else plain text.

    A line in quotes is JSON only in a file that is named so.
    """
    if choice != "auto":
        return choice
    lines = read_lines(path, Skips(), skip_bad=True)
    first = next((text for line in lines if (text := line.text.strip())), "")
    is_named_json = any(suffix in (".jsonl", ".ndjson", ".json") for suffix in path.suffixes)
    if first.startswith("{") or (first.startswith('"') and is_named_json):
        try:
            return "jsonl" if isinstance(json.loads(first), dict | str) else "text"
        except (ValueError, RecursionError):
            return "jsonl" if is_named_json else "text"
    if not first.startswith(("<", "=")):
        return "text"
    return recognise_markup([first, *(line.text for line in take_sample(lines)[0])]) or "text"


def choose_unit(unit: UnitChoice, samples: Sequence[Sequence[str]], lines: LinesChoice = "auto") -> tuple[Unit, str]:
    """(the choice, the reason in words), measured on the first lines of some files.

    `documents` where lines hold several sentences on average, or are wrapped.
    """
    if unit != "auto":
        return unit, "as asked"
    wrapped = [sample for sample in samples if full_line_characters(sample, lines) is not None]
    if 2 * sum(len(sample) for sample in wrapped) > sum(len(sample) for sample in samples):
        return "documents", "lines are wrapped"
    texts = [text for sample in samples for text in sample if text]
    measured = texts[:: -(-len(texts) // MEASURED_LINES) or 1]
    sentences = sum(1 for text in measured for _ in split_sentences(text[:MEASURED_CHARACTERS]))
    mean = sentences / max(1, len(measured))
    return ("documents" if mean > SENTENCES_OF_DOCUMENTS else "sentences"), f"{mean:.2f} sentences a line in a sample"
