"""What users give to predict on: files, folders, globs and standard input, read as text, as JSON or as a corpus."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, count
from pathlib import Path

from spe_dist.data.text.files import find_files
from spe_dist.data.text.lines import STANDARD_INPUT, Line, Skips, read_lines, shown_name, take_sample
from spe_dist.data.text.paragraphs import full_line_characters
from spe_dist.errors import DataError
from spe_dist.extraction.formats import read_corpus
from spe_dist.extraction.predicting.given import ACROSS_GIVEN
from spe_dist.extraction.predicting.items import placed
from spe_dist.extraction.predicting.json_input import ID_FIELDS, JsonReader
from spe_dist.extraction.predicting.text_input import FormatChoice, InputSettings, Located, Place, read_text

STANDARD_INPUT_FILE = "/dev/stdin"

_ORIGIN = re.compile(r"(?:line|item) (\d+)")
_JSON = re.compile(r'(?:\[\s*)?\{\s*(?:"|$)|\[\s*\]?$')
_JSON_STRINGS = re.compile(r'\[\s*"(?:[^"\\\n]|\\.)*"\s*(?:,\s*(?:["{\[\d-]|true|false|null)|\]\s*\Z)')


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
        lines = read_lines(path, skips, settings.skip_bad)
        sample, lines = take_sample(lines)
        if _is_json(sample, settings.format, path):
            reader = JsonReader(str(path), settings, skips, documents)
            yield from reader.read(chain(sample, lines))
            continue
        full_line, reason = _choose_lines(sample, settings)
        tell(f"{shown_name(path)}: {reason}")
        yield from read_text(str(path), chain(sample, lines), settings.tokenised, full_line, documents)


def read_corpora(
    inputs: Sequence[str], skips: Skips | None = None, tell: Callable[[str], None] = lambda _: None
) -> Iterator[Located]:
    """All sentences of corpora of any format that `read_corpus` knows, with their entities, in order.

    A corpus is read whole. skips: counts what reading decided or left out. tell: is given the format of each input.

    Raises:
        DataError: something cannot be read or is no corpus; the message names file and line.
    """
    skips = Skips() if skips is None else skips
    documents = count()
    for path in find_inputs(inputs):
        corpus = read_corpus(STANDARD_INPUT_FILE if str(path) == STANDARD_INPUT else path)
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
    """(characters of a full line, or None where each line ends a sentence; the decision in words)."""
    if settings.tokenised:
        return None, "text that is tokenised, one sentence a line"
    full_line = full_line_characters((line.text for line in sample), settings.lines)
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


def _is_json(sample: Sequence[Line], format: FormatChoice, path: Path) -> bool:
    if format != "auto":
        return format == "json"
    if any(suffix in (".jsonl", ".ndjson", ".json") for suffix in path.suffixes):
        return True
    text = "\n".join(line.text for line in sample).lstrip()
    return bool(_JSON.match(text.partition("\n")[0].rstrip()) or _JSON_STRINGS.match(text))
