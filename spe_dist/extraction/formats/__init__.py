"""Corpora in the formats that users have: read, told apart by content, and written.

`dygie` (DyGIE, SciERC, PURE), `spert` (SpERT), `pspe` (the released code of the paper) and `nyt` (distant supervision).
The modules of those names say what each looks like.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from spe_dist.errors import ConfigError, DataError
from spe_dist.extraction.corpora.corpus import Corpus, Document
from spe_dist.extraction.formats import distant, dygie, pspe, spert
from spe_dist.extraction.formats.detect import FORMATS, detect
from spe_dist.extraction.formats.distant import NOT_FOUND, NOT_PLACED
from spe_dist.extraction.formats.notices import Losses
from spe_dist.extraction.formats.records import read_records
from spe_dist.extraction.formats.saving import save_records

__all__ = ["FORMATS", "Losses", "read_corpus", "write_corpus"]

_READERS = {"dygie": dygie.read, "spert": spert.read, "pspe": pspe.read, "nyt": distant.read}
_WRITERS = {"dygie": dygie.write, "spert": spert.write, "pspe": pspe.write, "nyt": distant.write}


def read_corpus(path: str | Path, format: str = "auto", predictions: bool = False) -> Corpus:
    """All that a file holds: JSON lines, one JSON list or one object; plain, gzip, xz, zstandard or bzip2.

    format: a name of FORMATS, or "auto" to tell it by content.
    predictions: where a `dygie` document has `predicted_ner`, read that and `predicted_relations` in place of the gold.
    What had to be passed over or decided is counted in the corpus's `notices`.
    Errors: DataError for a damaged or unknown file, with the line (or item of a list), field, value and remedy.
    """
    _check(format, ("auto", *FORMATS))
    notices: Counter[str] = Counter()
    name, records = detect(read_records(path, notices), format)
    documents = tuple(_READERS[name](records, notices, predictions))
    if name != "nyt":  # which counts them where it keeps them aside
        _note_unplaced(documents, notices)
    return Corpus(documents, source=str(path), format=name, notices=+notices)


def _note_unplaced(documents: Iterable[Document], notices: Counter[str]) -> None:
    """What a conversion of the `nyt` format kept aside: it counts in scores, but is no mark in a sentence."""
    for sentence in (sentence for document in documents for sentence in document.sentences):
        for name, reason in (("entityMentions", NOT_FOUND), ("relationMentions", NOT_PLACED)):
            notices[reason] += len(sentence.unplaced.get(name, ()))


def write_corpus(corpus: Corpus, path: str | Path, format: str, overwrite: bool = True) -> Losses:
    """Write a corpus whole or not at all; returns what the format has no place for, counted by reason.

    `spert` is one JSON list, or JSON lines where the name ends in .jsonl; the others are JSON lines. Names that end in
    .gz, .xz, .zst or .bz2 are compressed.
    Errors: DataError where the file cannot be written, or exists and `overwrite` is off, or would hold nothing.
    """
    _check(format, FORMATS)
    if format != "dygie" and not corpus.n_sentences:  # only dygie has documents that hold none
        raise DataError(f"{corpus.source or 'the corpus'} holds no sentence to write as {format}; give one that does")
    losses: Losses = Counter()
    save_records(_WRITERS[format](corpus.documents, losses), Path(path), as_list=format == "spert", overwrite=overwrite)
    return +losses


def _check(name: str, names: tuple[str, ...]) -> None:
    if name not in names:
        raise ConfigError(f"format={name!r} is unknown; choose one of {', '.join(names)}")
