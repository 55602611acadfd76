"""From lines to sentences: plain text or JSON lines, one sentence a line or documents that are split.

What cannot be read is counted by reason (`Skips`), never dropped in silence.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from spe_dist.data.text.files import Part, read_parts
from spe_dist.data.text.words import spacy_splitter
from spe_dist.errors import ConfigError, DataError

UnitChoice = Literal["auto", "sentences", "documents"]
Unit = Literal["sentences", "documents"]
FormatChoice = Literal["auto", "text", "jsonl"]

BLANK = "blank lines"
UNDECODABLE = "lines that are not UTF-8"
BAD_JSON = "lines that are not JSON"
NO_TEXT_FIELD = "JSON lines without the text field"
BAD_LINES = (UNDECODABLE, BAD_JSON, NO_TEXT_FIELD)

SAMPLED_FILES = 16
SAMPLED_BYTES = 256 << 10
WRAPPED_LINE_CHARACTERS = 40
INNER_ENDS_OF_DOCUMENTS = 0.5  # sentence ends inside a line, on average, from which a line is no sentence
INNER_ENDS_OF_WRAPPED = 0.15
_INNER_END = re.compile(r"[^\W\d_]{2}[\"')\]]*\s?[.!?]+[\"')\]]*\s+[\"'(\[]*[A-Z]")
_LINE_END = re.compile(r"[.!?:;][\"'\u2019\u201d)\]]*\s*$")


@dataclass(frozen=True)
class TextReader:
    """How parts become sentences."""

    files: Sequence[Path]
    is_jsonl: Sequence[bool]  # by file
    unit: Unit
    text_field: str = "text"

    def sentences(self, part: Part, skips: Skips) -> Iterator[str]:
        """The sentences of a part in order, without leading and trailing space."""
        splitter = spacy_splitter() if self.unit == "documents" else None
        for text in self._texts(part, skips):
            if splitter is None:
                yield text
            else:
                yield from splitter.sentences(text)

    def _texts(self, part: Part, skips: Skips) -> Iterator[str]:
        """Lines (unit: sentences) or paragraphs (unit: documents)."""
        for segment in part.segments:
            lines: list[str] = []
            for number, line in enumerate(segment.data.split(b"\n")[: _n_lines(segment.data)], segment.first_line):
                skips.lines += 1
                try:
                    text = line.decode("utf-8").strip()
                except UnicodeDecodeError as error:
                    skips.add_bad(UNDECODABLE, self.files[segment.file], number, str(error))
                    continue
                if text and self.is_jsonl[segment.file]:
                    yield from self._of_json(text, segment.file, number, skips)
                elif self.unit == "documents" and text:
                    lines.append(text)
                elif self.unit == "documents":
                    yield from join_wrapped_lines(lines)
                    lines = []
                elif text:
                    yield text
                if not text:
                    skips.counts[BLANK] += 1
            yield from join_wrapped_lines(lines)

    def _of_json(self, line: str, file: int, number: int, skips: Skips) -> Iterator[str]:
        try:
            content = json.loads(line)
        except (ValueError, RecursionError) as error:
            skips.add_bad(BAD_JSON, self.files[file], number, str(error))
            return
        text = content.get(self.text_field) if isinstance(content, dict) else None
        if not isinstance(text, str):
            skips.add_bad(NO_TEXT_FIELD, self.files[file], number, f"no text under {self.text_field!r}")
            return
        lines = [line.strip() for line in text.encode("utf-8", "replace").decode("utf-8").split("\n")]
        if not any(lines):
            skips.counts[BLANK] += 1
        elif self.unit == "sentences":
            yield from (line for line in lines if line)
        else:
            yield from join_wrapped_lines(lines)


@dataclass
class Skips:
    """What was left out, by reason, and where the first bad line stands."""

    lines: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    first_bad: str | None = None

    @property
    def bad_lines(self) -> int:
        return sum(self.counts[reason] for reason in BAD_LINES)

    def add_bad(self, reason: str, path: Path, line: int, detail: str) -> None:
        self.counts[reason] += 1
        if self.first_bad is None:
            self.first_bad = f"{path}, line {line}: {detail}"


def _n_lines(data: bytes) -> int:
    """Lines of data, the last one counted also without its line break."""
    return data.count(b"\n") + (not data.endswith(b"\n"))


def join_wrapped_lines(lines: Sequence[str]) -> Iterator[str]:
    """Paragraphs of a document: a long line that ends no sentence goes on in the next; a short one is a heading."""
    held: list[str] = []
    for line in lines:
        if not line:
            continue
        held.append(line)
        if len(line) < WRAPPED_LINE_CHARACTERS or _LINE_END.search(line):
            yield " ".join(held)
            held = []
    if held:
        yield " ".join(held)


@dataclass(frozen=True)
class Sample:
    """Lines of some of the files, and what their look says."""

    texts: list[str]
    is_jsonl: tuple[bool, ...]  # by file, of all files


def take_sample(files: Sequence[Path], format: FormatChoice = "auto", text_field: str = "text") -> Sample:
    """Text of the first lines of up to 16 files spread over all."""
    if format not in ("auto", "text", "jsonl"):
        raise ConfigError(f"format={format!r} is unknown; choose 'auto', 'text' or 'jsonl'")
    is_jsonl = tuple(_is_jsonl(path) if format == "auto" else format == "jsonl" for path in files)
    texts: list[str] = []
    step = -(-len(files) // SAMPLED_FILES)
    for number in range(0, len(files), step):
        part = next(read_parts([files[number]], part_bytes=SAMPLED_BYTES), None)
        reader = TextReader(files[number : number + 1], is_jsonl[number : number + 1], "sentences", text_field)
        texts += list(reader._texts(part, Skips())) if part else []
    return Sample(texts, is_jsonl)


def _is_jsonl(path: Path) -> bool:
    """Whether the first line that is not blank is a JSON object."""
    part = next(read_parts([path], part_bytes=SAMPLED_BYTES), None)
    line = part.segments[0].data.lstrip().split(b"\n", 1)[0] if part else b""
    if not line.startswith(b"{"):
        return False
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return any(suffix in (".jsonl", ".ndjson", ".json") for suffix in path.suffixes)


def choose_unit(unit: UnitChoice, texts: Sequence[str]) -> tuple[Unit, str]:
    """(the choice, the reason in words), measured on a sample of lines.

    `documents` where lines hold several sentences on average, or break off in the middle of them.
    """
    if unit not in ("auto", "sentences", "documents"):
        raise ConfigError(f"unit={unit!r} is unknown; choose 'auto', 'sentences' or 'documents'")
    inner = sum(len(_INNER_END.findall(text)) for text in texts) / max(1, len(texts))
    open_ended = sum(1 for text in texts if not _LINE_END.search(text)) / max(1, len(texts))
    reason = f"{inner:.2f} sentence ends inside a line on average, {open_ended:.0%} of the lines end without one"
    if unit != "auto":
        return unit, f"as asked; {reason}"
    is_wrapped = open_ended > 0.5 and inner > INNER_ENDS_OF_WRAPPED
    return ("documents" if inner > INNER_ENDS_OF_DOCUMENTS or is_wrapped else "sentences"), reason


def check_bad_lines(skips: Skips, max_bad_share: float, at_least: int = 5) -> None:
    """DataError where more lines are bad than `max_bad_share` of all, and than `at_least`; or more than half of all."""
    if skips.bad_lines > max(at_least, max_bad_share * skips.lines) or skips.bad_lines > skips.lines / 2:
        counts = ", ".join(f"{skips.counts[reason]:,} {reason}" for reason in BAD_LINES if skips.counts[reason])
        raise DataError(
            f"{skips.bad_lines:,} of {skips.lines:,} lines cannot be used ({counts}; first: {skips.first_bad}), "
            f"more than max_bad_share={max_bad_share}; mend the input, name another text field, or raise max_bad_share"
        )
