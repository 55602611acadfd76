"""Corpora from and to files and folders, whatever their format.

`dygie` (DyGIE, SciERC, PURE), `spert` (SpERT), `pspe` (the released code of the paper), `nyt` (distant supervision) and
those of columns have words; the others are texts with offsets in characters. The modules of those names, there and in
`annotations`, say what each looks like.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from spe_dist.errors import ConfigError, DataError
from spe_dist.extraction.annotations import (
    align,
    back,
    brat,
    brat_writing,
    doccano,
    label_studio,
    plain,
    predicted,
    prodigy,
    pubtator,
)
from spe_dist.extraction.annotations.concepts import docred
from spe_dist.extraction.annotations.document import AnnotatedDocument
from spe_dist.extraction.annotations.settings import DEFAULTS, AnnotationSettings
from spe_dist.extraction.corpora.corpus import Corpus, Document
from spe_dist.extraction.formats import dygie, pspe, spert
from spe_dist.extraction.formats.by_text import distant, triples
from spe_dist.extraction.formats.by_text.distant import NOT_FOUND, NOT_PLACED
from spe_dist.extraction.formats.columns import conll, multihead
from spe_dist.extraction.formats.detect import FORMATS, detect, format_of_lines
from spe_dist.extraction.formats.no_label import note_no_labels, without_no_labels
from spe_dist.extraction.formats.node import Node
from spe_dist.extraction.formats.notices import Losses, Notices
from spe_dist.extraction.formats.records import lines_of, read_text, records_of
from spe_dist.extraction.formats.saving import save_records

_READERS = {
    "dygie": dygie.read,
    "spert": spert.read,
    "pspe": pspe.read,
    "conll": conll.read,
    "multihead": multihead.read,
}
_BY_TEXT = {"nyt": distant.read, "triples": triples.read}  # entities named by their text, which may be ordinary text
_ANNOTATED = {  # by character: modules whose `read` gives AnnotatedDocuments
    "plain": plain,
    "doccano": doccano,
    "label_studio": label_studio,
    "prodigy": prodigy,
    "pubtator": pubtator,
    "predicted": predicted,
    "docred": docred,
}
_WRITERS = {"dygie": dygie.write, "spert": spert.write, "pspe": pspe.write, "nyt": distant.write}

_ANNOTATED_WRITERS = {"plain": plain, "doccano": doccano}
WRITTEN_FORMATS = (*_WRITERS, *_ANNOTATED_WRITERS, "brat")


def read_corpus(
    path: str | Path,
    format: str = "auto",
    predictions: bool = False,
    settings: AnnotationSettings = DEFAULTS,
) -> Corpus:
    """Read a corpus of sentences with entities and relations.

        corpus = read_corpus("scierc/dev.json")
        for sentence in corpus.sentences:
            print(sentence.words, sentence.entities, sentence.relations)

    Args:
        path: a file of JSON lines, of one JSON list or of one object; plain or compressed by gzip, xz, zstandard or
            bzip2. Or a folder of brat.
        format: a name of FORMATS, or "auto" to recognise it by content.
        predictions: read `predicted_ner` and `predicted_relations` of `dygie` documents in place of the gold, where
            they have them.
        settings: how annotations by character, and entities that are named by their text, become words.

    Returns:
        The documents in the order of the file. Spans are half-open and count words of their sentence. `notices` counts
        what was skipped, or decided where the file leaves a choice, by reason.

    Raises:
        DataError: the file cannot be read, is damaged or has no known format. The message names the line (or the item
            of a list), the field, the value and the remedy.
        ConfigError: `format` is unknown.
    """
    _check(format, ("auto", *FORMATS))
    notices = Notices()
    if brat.is_brat(Path(path)):
        if format not in ("auto", "brat"):
            raise DataError(f"{path} has the format brat, not {format} as asked; name a file of that format")
        name, read = "brat", _aligned(brat.read(Path(path), notices), settings, notices)
    else:
        name, records = _records(path, format, notices)
        read = _documents(name, records, notices, predictions, settings)
    documents = without_no_labels(read, notices, predictions)
    if name not in _BY_TEXT:  # which count them themselves
        _note_unplaced(documents, notices)
    return Corpus(documents, source=str(path), format=name, notices=notices.named())


def _records(path: str | Path, format: str, notices: Counter[str]) -> tuple[str, Iterator[Node]]:
    """The format of a file, and its records or lines."""
    text, source = read_text(path), str(path)
    of_lines = format_of_lines(text, source, format)
    if of_lines:
        return of_lines, lines_of(text, source)
    return detect(records_of(text, source, notices), format)


def _aligned(
    documents: Iterable[AnnotatedDocument], settings: AnnotationSettings, notices: Counter[str]
) -> Iterator[Document]:
    return (align.align(document, settings, notices) for document in documents)


def _documents(
    name: str, records: Iterator[Node], notices: Counter[str], predictions: bool, settings: AnnotationSettings
) -> Iterator[Document]:
    if name in _ANNOTATED:
        return _aligned(_ANNOTATED[name].read(records, notices, settings), settings, notices)
    if name in _BY_TEXT:
        return _BY_TEXT[name](records, notices, predictions, settings)
    return _READERS[name](records, notices, predictions)


def read_record(record: Mapping[str, Any], place: str, settings: AnnotationSettings = DEFAULTS) -> Corpus:
    """The corpus of one JSON object in memory, as `read_corpus` gives that of a file with this object.

    Args:
        record: of any format whose files are JSON.
        place: what messages call it.
        settings: as for `read_corpus`.

    Raises:
        DataError: it is damaged or has no known format.
    """
    notices = Notices()
    try:
        value = json.loads(json.dumps(record))  # tuples become lists
    except (TypeError, ValueError, RecursionError) as error:
        raise DataError(f"{place} is not a JSON object ({error}); give numbers, strings, lists and dicts") from None
    name, records = detect([Node(value, place)], "auto")
    documents = without_no_labels(_documents(name, records, notices, False, settings), notices, False)
    return Corpus(documents, source=place, format=name, notices=notices.named())


def _note_unplaced(documents: Iterable[Document], notices: Counter[str]) -> None:
    """Count what a conversion from the `nyt` format could not place in a sentence; scores compare it by text."""
    for sentence in (sentence for document in documents for sentence in document.sentences):
        for name, reason in (("entityMentions", NOT_FOUND), ("relationMentions", NOT_PLACED)):
            notices[reason] += len(sentence.unplaced.get(name, ()))


def write_corpus(corpus: Corpus, path: str | Path, format: str, overwrite: bool = True) -> Losses:
    """Write a corpus. The file appears when it is complete.

        losses = write_corpus(read_corpus("scierc/dev.json"), "dev.jsonl.gz", "spert")

    Args:
        corpus: of any format.
        path: a folder for `brat`. Else a file: `spert` becomes one JSON list, or JSON lines where the name ends in
            .jsonl; the other formats are JSON lines. A name that ends in .gz, .xz, .zst or .bz2 is compressed.
        format: a name of WRITTEN_FORMATS.
        overwrite: whether an existing file is replaced.

    Returns:
        What the format has no place for, counted by reason; empty where nothing is lost.

    Raises:
        DataError: the file cannot be written, exists without `overwrite`, or would hold no sentence.
        ConfigError: `format` is unknown, or only read.
    """
    _check(format, WRITTEN_FORMATS)
    if format != "dygie" and not corpus.n_sentences:  # only dygie has documents that hold none
        raise DataError(f"{corpus.source or 'the corpus'} holds no sentence to write as {format}; give one that does")
    losses: Losses = Counter()
    note_no_labels(corpus.documents, losses)
    if format in _WRITERS:
        records = _WRITERS[format](corpus.documents, losses)
    else:
        annotated = (back.characters_of(document, losses) for document in corpus.documents)
        if format == "brat":
            brat_writing.write_folder(list(annotated), Path(path), losses, overwrite)
            return +losses
        records = _ANNOTATED_WRITERS[format].write(annotated, losses)
    save_records(records, Path(path), as_list=format == "spert", overwrite=overwrite)
    return +losses


def written_format(name: str) -> str:
    """The format of the file to which predictions on a corpus of a format are written: the same where it can be."""
    if name in _WRITERS or name in _ANNOTATED_WRITERS:
        return name
    return "plain" if name in _ANNOTATED or name == "brat" else "spert"


def _check(name: str, names: tuple[str, ...]) -> None:
    if name not in names:
        fault = "is read and not written" if name in FORMATS else "is unknown"
        raise ConfigError(f"format={name!r} {fault}; choose one of {', '.join(names)}")
