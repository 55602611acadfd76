"""Write brat folders: a text and a file of annotations for each document, and `annotation.conf` for the tool."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from spe_dist.errors import DataError, SpeError
from spe_dist.extraction.annotations.back import for_tools
from spe_dist.extraction.annotations.document import AnnotatedDocument, Characters
from spe_dist.extraction.corpora.names import file_names
from spe_dist.extraction.formats.notices import Losses
from spe_dist.utils.files import atomic_folder

CONFIGURATION = "annotation.conf"
RENAMED = "entities and relations whose type has white space, written as _"
_OWN = re.compile(r".*\.(txt|ann)|annotation\.conf")


def write_folder(documents: Sequence[AnnotatedDocument], folder: Path, losses: Losses, overwrite: bool) -> None:
    """Write documents into a folder, which appears when it is complete.

    Raises:
        DataError: the folder cannot be written; or is not empty, without `overwrite` or with other files than brat's.
    """
    _check(folder, overwrite)
    types: set[str] = set()
    names: set[str] = set()
    try:
        with atomic_folder(folder) as written:
            for document, name in zip(documents, file_names([document.key for document in documents]), strict=True):
                own = for_tools(document, losses)
                path = written / f"{name}.txt"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(own.text.encode("utf-8"))
                path.with_name(f"{path.stem}.ann").write_bytes("".join(_lines(own, losses)).encode("utf-8"))
                types.update(_name(span.type) for span in own.spans)
                names.update(_name(relation.type) for relation in own.relations)
            (written / CONFIGURATION).write_bytes(_configuration(sorted(types), sorted(names)).encode("utf-8"))
    except OSError as error:
        raise DataError(f"{folder} cannot be written ({error.strerror}); check its place and space") from None
    except SpeError as error:
        raise DataError(str(error)) from None


def _check(folder: Path, overwrite: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder} is a file, and brat is a folder of files; name a folder")
    inside = [path for path in folder.rglob("*") if not path.is_dir()] if folder.is_dir() else []
    if inside and not overwrite:
        raise DataError(f"{folder} is not empty; name another folder, or allow it to be overwritten (--overwrite)")
    foreign = next((path for path in inside if not _OWN.fullmatch(path.name)), None)
    if foreign is not None:
        raise DataError(
            f"{folder} holds {foreign.name}, which is not a brat file, so it is not overwritten; name another folder"
        )


def _lines(document: AnnotatedDocument, losses: Losses) -> Iterator[str]:
    for number, span in enumerate(document.spans, 1):
        losses[RENAMED] += _name(span.type) != span.type
        pieces = [part for piece in span.pieces for part in _without_breaks(document.text, piece)] or list(span.pieces)
        words = " ".join(re.sub(r"\s", " ", document.text[start:end]) for start, end in pieces)
        places = ";".join(f"{start} {end}" for start, end in pieces)
        yield f"T{number}\t{_name(span.type)} {places}\t{words}\n"
    for number, relation in enumerate(document.relations, 1):
        losses[RENAMED] += _name(relation.type) != relation.type
        yield f"R{number}\t{_name(relation.type)} Arg1:T{relation.head + 1} Arg2:T{relation.tail + 1}\n"


def _without_breaks(text: str, piece: Characters) -> Iterator[Characters]:
    """The parts of a piece that are in one line: brat has no entities over line breaks."""
    for match in re.finditer(r"[^\r\n]+", text[piece[0] : piece[1]]):
        part = match.group()
        start = piece[0] + match.start() + len(part) - len(part.lstrip())
        if part.strip():
            yield start, start + len(part.strip())


def _name(type: str) -> str:
    return re.sub(r"\s", "_", type)


def _configuration(entities: Sequence[str], relations: Sequence[str]) -> str:
    pairs = [f"{name}\tArg1:<ENTITY>, Arg2:<ENTITY>" for name in relations]
    return "\n".join(["[entities]", *entities, "", "[relations]", *pairs, "", "[events]", "", "[attributes]", ""])
