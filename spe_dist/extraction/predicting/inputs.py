"""What users give to predict on: files, folders, globs and standard input, read as text, as JSON or as a corpus."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, count
from pathlib import Path

from spe_dist.data.text.files import find_files
from spe_dist.data.text.formats.recognise import (
    RECORD_UNITS,
    Format,
    Head,
    described,
    json_format,
    recognise,
    record_lines,
    table_of,
    take_head,
)
from spe_dist.data.text.lines import STANDARD_INPUT, Line, Skips, open_chunks, read_lines, shown_name, take_sample
from spe_dist.data.text.paragraphs import full_line_columns
from spe_dist.errors import DataError
from spe_dist.extraction.annotations.brat import is_brat
from spe_dist.extraction.annotations.settings import DEFAULTS, AnnotationSettings
from spe_dist.extraction.formats import read_corpus
from spe_dist.extraction.predicting.calls.items import placed
from spe_dist.extraction.predicting.given import ACROSS_GIVEN
from spe_dist.extraction.predicting.json_input import DAMAGE_REMEDY, ID_FIELDS, JsonReader
from spe_dist.extraction.predicting.text_input import InputSettings, Located, Place, read_articles, read_text

STANDARD_INPUT_FILE = "/dev/stdin"

_ORIGIN = re.compile(r"(?:line|item) (\d+)")


def read_inputs(
    inputs: Sequence[str],
    settings: InputSettings | None = None,
    skips: Skips | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> Iterator[Located]:
    """All sentences of files, folders, globs and standard input ("-"), in order.

    skips: counts what was left out. tell: is given what was decided about each input.

    Raises:
        DataError: something cannot be read and `skip_bad` is not set; the message names file and line.
    """
    settings = settings or InputSettings()
    skips = Skips() if skips is None else skips
    documents = count()
    for path in find_inputs(inputs):
        head, chunks = take_head(open_chunks(path))
        form = _format(head, settings, path)
        table = table_of(form, head, settings.text_field, shown_name(path))
        if form in RECORD_UNITS:
            tell(f"{shown_name(path)}: {described(form, table)}")
            chunks = record_lines(form, table, settings.text_field, chunks, path, DAMAGE_REMEDY)
            unit = RECORD_UNITS[form]
            lines = read_lines(path, skips, settings.skip_bad, chunks, unit)
            yield from JsonReader(str(path), settings, skips, documents, unit).read(lines)
            continue
        sample, lines = take_sample(read_lines(path, skips, settings.skip_bad, chunks))
        lines = chain(sample, lines)
        if form == "wikiextractor" or form == "wikitext":
            tell(f"{shown_name(path)}: {described(form, None)}, without its markup")
            yield from read_articles(str(path), lines, form, skips.counts, documents, settings.language)
            continue
        full_line, reason = _choose_lines(sample, settings)
        tell(f"{shown_name(path)}: {reason}")
        yield from read_text(str(path), lines, settings.tokenised, full_line, documents, settings.language)


def _format(head: Head, settings: InputSettings, path: Path) -> Format:
    """As chosen, or what the first bytes show; text that is split into words already is read as it is."""
    if settings.format == "json":
        return json_format(head)
    if settings.format != "auto":
        return settings.format
    form = recognise(head, path.name, settings.text_field)
    return "text" if settings.tokenised and form == "wikitext" else form


def read_corpora(
    inputs: Sequence[str],
    skips: Skips | None = None,
    tell: Callable[[str], None] = lambda _: None,
    settings: AnnotationSettings = DEFAULTS,
) -> Iterator[Located]:
    """All sentences of corpora of any format that `read_corpus` knows, with their entities, in order.

    A corpus is read whole. skips: counts what reading decided or left out. tell: is given the format of each input.

    Raises:
        DataError: something cannot be read or is no corpus; the message names file and line.
    """
    skips = Skips() if skips is None else skips
    documents = count()
    for path in find_corpora(inputs):
        corpus = read_corpus(STANDARD_INPUT_FILE if str(path) == STANDARD_INPUT else path, settings=settings)
        tell(f"{shown_name(path)}: a corpus in the format {corpus.format}, whose entities are taken as they are")
        skips.counts.update(corpus.notices)
        for document in corpus.documents:
            skips.counts[ACROSS_GIVEN] += len(document.cross_entities)
            number = next(documents)
            for position, (start, sentence) in enumerate(placed(document)):
                identity = next((sentence.extra[k] for k in ID_FIELDS if k in sentence.extra), document.id or None)
                line = int((_ORIGIN.findall(sentence.origin) or ["0"])[-1])
                yield Located(Place(str(path), number, identity, line, position, start), sentence)


def _choose_lines(sample: Sequence[Line], settings: InputSettings) -> tuple[int | None, str]:
    """(columns of a full line, or None where each line ends a sentence; the decision in words)."""
    if settings.tokenised:
        return None, "text that is tokenised, one sentence a line"
    full_line = full_line_columns((line.text for line in sample), settings.lines)
    if settings.lines != "auto":
        return full_line, f"text with {settings.lines} lines, as asked"
    if full_line is not None:
        return full_line, "text with wrapped lines, joined to paragraphs (--lines separate if each ends a sentence)"
    return None, "text with lines that end with a sentence (--lines wrapped if sentences go on in the next line)"


def find_inputs(inputs: Sequence[str]) -> list[Path]:
    """All files that arguments name, "-" as it is.

    Raises:
        DataError: an argument names none.
    """
    if list(inputs).count(STANDARD_INPUT) > 1:
        raise DataError("standard input (-) is given twice; it can be read once")
    return [p for name in inputs for p in ([Path(name)] if name == STANDARD_INPUT else find_files([name]))]


def find_corpora(inputs: Sequence[str]) -> list[Path]:
    """As `find_inputs`, but for a folder of brat, which is one corpus.

    Raises:
        DataError: an argument names no file.
    """
    if not any(is_brat(Path(name)) for name in inputs):
        return find_inputs(inputs)
    return [p for name in inputs for p in ([Path(name)] if is_brat(Path(name)) else find_inputs([name]))]
