"""brat: a folder of texts (`doc.txt`), each with a file of annotations (`doc.ann`), at any depth.

    T1      Person 2 14      Ada Lovelace          an entity: type, offsets, words
    T8      Org 2 5;17 21    Ada firm              a discontinuous one
    R1      owns Arg1:T1 Arg2:T2                   a relation of two entities

with tabs between the three fields; offsets count characters, ends are exclusive. Events (E), attributes (A, M), notes
(#), normalisations (N) and equivalences (*) are counted: there is no place for them; the trigger of an event is an
entity as any other. `doc.a1` and `doc.a2`, as the BioNLP tasks have them, are read as one `doc.ann`.
"""

from __future__ import annotations

import os
import re
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from spe_dist.errors import DataError
from spe_dist.extraction.annotations.document import (
    AnnotatedDocument,
    AnnotatedRelation,
    AnnotatedSpan,
    Characters,
)
from spe_dist.extraction.annotations.offsets import check_words
from spe_dist.extraction.formats.node import Node, shown
from spe_dist.extraction.formats.notices import note
from spe_dist.extraction.formats.records import lines_of, read_exactly

SUFFIXES = (".ann", ".a1", ".a2")
MOST_ENTRIES = 100_000  # of files and folders, after which a folder without annotations is none of brat's
NO_PLACE = {
    "E": "events (their triggers are entities)",
    "A": "attributes, not kept",
    "M": "attributes, not kept",
    "#": "notes, not kept",
    "N": "normalisations, not kept",
    "*": "equivalences, not kept",
}
EVENT_ARGUMENTS = "relations with an event, taken as with its trigger"
UNKNOWN_ARGUMENTS = "relations with an argument that is not an entity of the file, left out"
NOT_TWO = "relations that do not have two arguments, left out"
UNKNOWN_LINES = "lines of no known kind, left out"
NO_TEXT = "files of annotations without a text, left out"
NO_ANNOTATIONS = "texts without a file of annotations, left out"

_OFFSETS = re.compile(r"(\S+) (-?\d{1,15} -?\d{1,15}(?:;-?\d{1,15} -?\d{1,15})*)")
_REMEDY = 'write "T1<tab>Type 0 4<tab>words", "R1<tab>Type Arg1:T1 Arg2:T2"'


def is_brat(path: Path) -> bool:
    """Whether a path is a folder with annotations, or one file of them."""
    return path.suffix in SUFFIXES if path.is_file() else _has_annotations(path)


def _has_annotations(folder: Path) -> bool:
    """Whether there is a file of annotations among the first entries of a folder and of all folders in it."""
    waiting, looked_at = deque([folder]), 0
    while waiting:
        try:
            with os.scandir(waiting.popleft()) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    if entry.name.endswith(SUFFIXES) and entry.is_file():
                        return True
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(Path(entry.path))
                    looked_at += 1
                    if looked_at == MOST_ENTRIES:
                        return False
        except (OSError, ValueError):  # no folder, one that cannot be listed, or no name at all
            continue
    return False


def read(path: Path, notices: Counter[str]) -> Iterator[AnnotatedDocument]:
    """The documents of a folder, by name; of a file, that one.

    Raises:
        DataError: no file of annotations has its text, or a file cannot be read or is damaged.
    """
    root = path if path.is_dir() else path.parent
    files: dict[Path, list[Path]] = {}
    for file in _annotation_files(path) if path.is_dir() else [path]:
        files.setdefault(file.with_suffix(""), []).append(file)
    texts = {stem: stem.with_name(f"{stem.name}.txt") for stem in files}
    if not any(text.is_file() for text in texts.values()):
        raise DataError(
            f"{path} has {shown(path.name if path.is_file() else str(next(iter(files)).name) + '.ann')}, but no text "
            "beside it; put each text there under the same name, with .txt in place of .ann"
        )
    for stem, own in files.items():
        if texts[stem].is_file():
            yield _document(stem.relative_to(root).as_posix(), texts[stem], own, notices)
        else:
            note(notices, NO_TEXT, str(own[0]))
    if path.is_dir():
        for text in _visible(path, (".txt",)):
            if text.with_suffix("") not in files:
                note(notices, NO_ANNOTATIONS, str(text))


def _annotation_files(folder: Path) -> Iterator[Path]:
    return _visible(folder, SUFFIXES)


def _visible(folder: Path, suffixes: Sequence[str]) -> Iterator[Path]:
    """The files of a folder with such names, at any depth, by name; none that is hidden."""
    for file in sorted(folder.rglob("*")):
        is_hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
        if file.suffix in suffixes and not is_hidden and file.is_file():
            yield file


@dataclass
class _Annotations:
    """What the files of one text hold."""

    spans: list[AnnotatedSpan] = field(default_factory=list)
    words: list[str | None] = field(default_factory=list)
    positions: dict[str, int] = field(default_factory=dict)  # of the spans, by their ids
    triggers: dict[str, str] = field(default_factory=dict)  # ids of events and of their triggers
    relations: list[tuple[Node, str, list[str]]] = field(default_factory=list)  # line, type, ids of the arguments


def _document(key: str, text_file: Path, files: Sequence[Path], notices: Counter[str]) -> AnnotatedDocument:
    text = read_exactly(text_file)
    found = _Annotations()
    for file in files:
        for line in lines_of(read_exactly(file).replace("\r\n", "\n"), str(file)):
            if line.string().strip():
                _read_line(line, text, found, notices)
    relations = _relations(found, notices)
    document = AnnotatedDocument(key, text, tuple(found.spans), relations, origin=str(text_file))
    return check_words(document, found.words, notices)


def _read_line(line: Node, text: str, found: _Annotations, notices: Counter[str]) -> None:
    key, _, rest = line.string().partition("\t")
    kind = key[:1]
    if kind == "T":
        _read_entity(line, key, rest, text, found)
    elif kind == "R":
        name, *arguments = rest.split() or [""]
        if not name or not all(":" in argument for argument in arguments):
            line.fail("a relation has a type and arguments as Arg1:T1", _REMEDY)
        if len(arguments) == 2:
            found.relations.append((line, name, [part.split(":", 1)[1] for part in sorted(arguments, key=_role)]))
        else:
            note(notices, NOT_TWO, line.place)
    elif kind in NO_PLACE:
        if kind == "E" and rest:
            found.triggers[key] = rest.split()[0].partition(":")[2]
        notices[NO_PLACE[kind]] += 1
    else:
        note(notices, UNKNOWN_LINES, f"{shown(line.value)}, {line.place}")


def _role(argument: str) -> str:
    """What orders two arguments: Arg1 and Arg2 by their numbers, other roles as they stand."""
    role = argument.partition(":")[0]
    return role if role in ("Arg1", "Arg2") else ""


def _read_entity(line: Node, key: str, rest: str, text: str, found: _Annotations) -> None:
    place, _, words = rest.partition("\t")
    match = _OFFSETS.fullmatch(place.strip())
    if not match:
        line.fail("an entity has a type and offsets", _REMEDY)
    if key in found.positions:
        line.fail(f"{key} is the id of an earlier entity", "give each entity an id of its own")
    pieces = sorted(_piece(piece) for piece in match[2].split(";"))
    found.positions[key] = len(found.spans)
    found.spans.append(AnnotatedSpan(tuple(pieces), match[1], key))
    found.words.append(words or None)


def _piece(text: str) -> Characters:
    start, end = map(int, text.split())
    return start, end


def _relations(found: _Annotations, notices: Counter[str]) -> tuple[AnnotatedRelation, ...]:
    relations = []
    for line, name, arguments in found.relations:
        notices[EVENT_ARGUMENTS] += any(argument in found.triggers for argument in arguments)
        positions = [found.positions.get(found.triggers.get(argument, argument)) for argument in arguments]
        head, tail = positions
        if head is None or tail is None:
            note(notices, UNKNOWN_ARGUMENTS, f"{shown(line.value)}, {line.place}")
        else:
            relations.append(AnnotatedRelation(head, tail, name))
    return tuple(relations)
