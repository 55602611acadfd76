"""The first stage of a build: all text as sorted runs of sentences in words, and the counts of those words.

An external shuffle in two passes: each part of the text writes its sentences sorted by a random key, as a run; each
shard then reads from every run the keys of its range, which lie together. Memory holds one part or one shard, never
the corpus.

A run on disk: uint32 bins [BINS + 1] (where each range of keys starts), uint64 keys [N], uint32 ends [N] (of the texts,
in bytes), the texts in UTF-8.

Legend of the shape suffixes: N sentences
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from spe_dist.data.build.duplicates import (
    BINS,
    HASHES,
    Duplicates,
    bin_borders,
    dropped_and_noticed,
    exact_hash,
    hashes_path,
    text_hash,
    write_hashes,
)
from spe_dist.data.build.reading import TextReader
from spe_dist.data.build.report import REMEDIES, SPECIAL_WRITTEN, TOO_SHORT, Progress
from spe_dist.data.build.settings import CONTINUE_REMEDY, MIN_WORDS
from spe_dist.data.text.files import Part, read_parts
from spe_dist.data.text.languages import language_of
from spe_dist.data.text.lines import Skips, check_bad_lines
from spe_dist.data.text.words import tokenizer_of
from spe_dist.errors import DataError
from spe_dist.utils.files import write_atomically
from spe_dist.utils.parallel import map_in_order
from spe_dist.utils.randomness import keys
from spe_dist.utils.reading.json_file import read_object

HASH_RANGE = 2.0**64
_HEAD_BYTES = 4 * (BINS + 1)
ENOUGH_BAD_LINES = 1_000  # from which a build fails before it has seen all lines
MAX_COUNTED_WORDS = 3_000_000  # different words held while counting; beyond, those met once are forgotten
_SPECIAL = re.compile(r"\[(?:MASK|CLS|SEP|PAD|UNK)\]")


@dataclass(frozen=True)
class PartSettings:
    """What a part's runs depend on, besides the part."""

    reader: TextReader
    seed: int
    held_out: float
    count_words: bool  # for training a vocabulary
    folder: Path


@dataclass
class RunsSummary:
    """What the text held."""

    parts: int  # runs of each split: one for each part, or for each group of parts
    lines: int
    sentences: int
    skipped: dict[str, int]
    noticed: dict[str, int]

    def without(self, duplicates: Duplicates) -> RunsSummary:
        """The same without the duplicates that are dropped, once they are found."""
        dropped, kept = dropped_and_noticed(duplicates.counts(), duplicates.drop)
        sentences = self.sentences - sum(dropped.values())
        return replace(self, sentences=sentences, skipped=self.skipped | dropped, noticed=self.noticed | kept)


class Tally:
    """Adds up the records of runs, in their order."""

    def __init__(self) -> None:
        self.skips, self.noticed, self.sentences, self.runs = Skips(), Counter[str](), 0, 0

    def add(self, record: Mapping[str, Any]) -> None:
        self.skips.lines += record["lines"]
        self.skips.counts.update(record["skipped"])
        self.skips.first_bad = self.skips.first_bad or record["first_bad"]
        self.noticed.update(record["noticed"])
        self.sentences += record["sentences"]
        self.runs += 1

    def record(self) -> dict[str, Any]:
        """The sum, as a record itself."""
        return _record(self.skips, self.noticed, self.sentences)

    def summary(self, max_bad_share: float) -> RunsSummary:
        """What the whole text held.

        Raises:
            DataError: too many lines are bad, or no sentence is left.
        """
        check_bad_lines(self.skips, max_bad_share)
        if not self.sentences:
            counts = ", ".join(f"{count:,} {reason}" for reason, count in self.skips.counts.items()) or "nothing else"
            most = max(REMEDIES, key=lambda reason: self.skips.counts[reason])
            remedy = f": {REMEDIES[most]}" if self.skips.counts[most] else ""
            raise DataError(
                f"the input has {self.skips.lines:,} lines but no sentence to keep ({counts}); "
                f"check the files and the text field{remedy}"
            )
        return RunsSummary(self.runs, self.skips.lines, self.sentences, dict(self.skips.counts), dict(self.noticed))


def make_all_runs(settings: PartSettings, processes: int, max_bad_share: float, quiet: bool) -> RunsSummary:
    """Make the runs of all parts that have none; at once if that was finished before.

    Raises:
        DataError: too many lines are bad, or no sentence is left.
    """
    done = settings.folder.with_suffix(".json")
    if done.is_file():
        return RunsSummary(**read_object(done, CONTINUE_REMEDY))
    if settings.reader.words == "tokenizer" or settings.reader.unit == "documents":
        tokenizer = tokenizer_of(language_of("", settings.reader.language))
        tokenizer.words("Loaded here, once for all the processes that start from this one.")
    tally = Tally()
    progress = Progress("words", sum(file.path.stat().st_size for file in settings.reader.files), quiet)
    for read_bytes, record in _records(settings, processes):
        tally.add(record)
        check_bad_lines(tally.skips, max_bad_share, ENOUGH_BAD_LINES)
        progress.advance_to(read_bytes, record["sentences"])
    progress.close()
    summary = tally.summary(max_bad_share)
    write_atomically(done, json.dumps(asdict(summary)))
    return summary


def _records(settings: PartSettings, processes: int) -> Iterator[tuple[int, dict[str, Any]]]:
    """(bytes of the input read, record) of all parts in order; parts that have a record are not made again."""
    waiting: list[tuple[int, dict[str, Any] | None]] = []

    def tasks() -> Iterator[tuple[Part, PartSettings]]:
        paths = [file.path for file in settings.reader.files]
        for part in read_parts(paths, settings.reader.break_at, chunks=settings.reader.chunks):
            path = record_path(settings.folder, part.index)
            record = read_object(path, CONTINUE_REMEDY) if path.is_file() else None
            waiting.append((part.read_bytes, record))
            if record is None:
                yield part, settings

    def known() -> Iterator[tuple[int, dict[str, Any]]]:
        while waiting and waiting[0][1] is not None:
            read_bytes, record = waiting.pop(0)
            yield read_bytes, record or {}

    for made in map_in_order(make_runs, tasks(), processes):
        yield from known()
        yield waiting.pop(0)[0], made
    yield from known()


def make_runs(task: tuple[Part, PartSettings]) -> dict[str, Any]:
    """Split a part into words and write its runs; the record is written last and returned."""
    part, settings = task
    skips, noticed, word_counts = Skips(), Counter[str](), Counter[str]()
    texts: dict[str, list[str]] = {"train": [], "held_out": []}
    numbers: list[int] = []
    text_hashes: list[int] = []
    exact_hashes: list[int] = []
    limit = settings.held_out * HASH_RANGE
    for number, (sentence, words) in enumerate(settings.reader.sentences(part, skips, noticed)):
        if len(words) < MIN_WORDS:
            skips.counts[TOO_SHORT] += 1
            continue
        hashed, text = text_hash(sentence), " ".join(words)
        split = "held_out" if hashed < limit else "train"
        texts[split].append(text)
        numbers.append(number)
        text_hashes.append(hashed)
        exact_hashes.append(exact_hash(text))
        if "[" in sentence and _SPECIAL.search(sentence):
            noticed[SPECIAL_WRITTEN] += 1
        if settings.count_words and split == "train":
            word_counts.update(words)
    hashes_N = np.empty(len(numbers), HASHES)
    hashes_N["text"], hashes_N["exact"] = np.array(text_hashes, np.uint64), exact_hashes
    hashes_N["key"] = keys(settings.seed, part.index, np.array(numbers, dtype=np.int64))
    hashes_N["held_out"] = [hashed < limit for hashed in text_hashes]
    for split, split_texts in texts.items():
        keys_N = hashes_N["key"][hashes_N["held_out"] == (split == "held_out")]
        write_run(run_path(settings.folder, part.index, split), keys_N, split_texts)
    write_hashes(hashes_path(settings.folder, part.index), hashes_N)
    if settings.count_words:
        write_word_counts(run_path(settings.folder, part.index, "words"), word_counts)
    record = _record(skips, noticed, sum(len(split_texts) for split_texts in texts.values()))
    write_atomically(record_path(settings.folder, part.index), json.dumps(record))
    return record


def _record(skips: Skips, noticed: Mapping[str, int], sentences: int) -> dict[str, Any]:
    return {
        "lines": skips.lines,
        "skipped": dict(skips.counts),
        "first_bad": skips.first_bad,
        "noticed": dict(noticed),
        "sentences": sentences,
    }


def is_held_out(text: str, share: float) -> bool:
    """Whether a sentence is held out: by a hash of its text without case, spaces and Unicode's variants of letters.

    Equal sentences, tokenised or not, are on the same side in every corpus.
    """
    return text_hash(text) < share * HASH_RANGE


def run_path(folder: Path, part: int, split: str) -> Path:
    """The file with a part's sentences of one split."""
    return folder / f"{part:06d}.{split}"


def record_path(folder: Path, part: int) -> Path:
    """The file with the counts of a part; it is written last."""
    return folder / f"{part:06d}.json"


def write_run(path: Path, keys_N: np.ndarray, texts: Sequence[str]) -> None:
    """Write the sentences in the order of their keys. The file appears when it is whole."""
    _write_run(path, keys_N, [text.encode("utf-8") for text in texts])


def merge_runs(paths: Sequence[Path], merged: Path) -> None:
    """Write the sentences of several runs as one run; equal keys stay in the order of the runs."""
    found = [_read_run(path, 0, BINS) for path in paths]
    _write_run(merged, np.concatenate([keys_N for keys_N, _ in found]), list(chain(*(texts for _, texts in found))))


def _write_run(path: Path, keys_N: np.ndarray, texts: Sequence[bytes]) -> None:
    order = np.argsort(keys_N, kind="stable")
    keys_N = keys_N[order].astype("<u8")
    encoded = [texts[i] for i in order]
    bins = bin_borders(keys_N)
    ends_N = np.cumsum([len(text) for text in encoded], dtype=np.int64).astype("<u4")
    write_atomically(path, b"".join([bins.tobytes(), keys_N.tobytes(), ends_N.tobytes(), *encoded]))


def bin_sizes(path: Path) -> np.ndarray:
    """int64 [BINS]: sentences in each range of keys."""
    return np.diff(np.fromfile(path, "<u4", BINS + 1).astype(np.int64))


def count_bins(folder: Path, n_runs: int, split: str) -> np.ndarray:
    """int64 [BINS]: sentences of the split in each range of keys, over all runs."""
    return np.sum([bin_sizes(run_path(folder, run, split)) for run in range(n_runs)], axis=0)


def read_run(path: Path, first_bin: int, end_bin: int) -> tuple[np.ndarray, list[str]]:
    """(keys_N, texts) of the bins first_bin..end_bin-1, in the order of their keys."""
    keys_N, texts = _read_run(path, first_bin, end_bin)
    return keys_N, [text.decode("utf-8") for text in texts]


def _read_run(path: Path, first_bin: int, end_bin: int) -> tuple[np.ndarray, list[bytes]]:
    with open(path, "rb") as file:
        bins = np.frombuffer(file.read(_HEAD_BYTES), "<u4").astype(np.int64)
        total, first, end = int(bins[-1]), int(bins[first_bin]), int(bins[end_bin])
        if first == end:
            return np.zeros(0, np.uint64), []
        file.seek(_HEAD_BYTES + 8 * first)
        keys_N = np.frombuffer(file.read(8 * (end - first)), "<u8")
        before = min(first, 1)  # one end more than sentences, where there is one, is where the first text starts
        file.seek(_HEAD_BYTES + 8 * total + 4 * (first - before))
        borders = np.frombuffer(file.read(4 * (end - first + before)), "<u4").astype(np.int64).tolist()
        borders = borders if before else [0, *borders]
        file.seek(_HEAD_BYTES + 12 * total + borders[0])
        data = file.read(borders[-1] - borders[0])
    start = borders[0]
    return keys_N, [data[a - start : b - start] for a, b in pairwise(borders)]


def write_word_counts(path: Path, counts: Counter[str]) -> None:
    """Write a word and its count a line."""
    write_atomically(path, "".join(f"{word}\t{count}\n" for word, count in counts.items()))


def read_word_counts(path: Path) -> Iterator[tuple[str, int]]:
    """(word, count) as `write_word_counts` has written them."""
    with open(path, encoding="utf-8", newline="\n") as file:
        for line in file:
            word, count = line.rsplit("\t", 1)
            yield word, int(count)


def count_dropped_words(duplicates: Duplicates, processes: int) -> Counter[str]:
    """Counts of the words of training sentences that are dropped as duplicates."""
    counts: Counter[str] = Counter()
    tasks = [(duplicates, number) for number in range(duplicates.ranges)]
    for found in map_in_order(_dropped_words_of_range, tasks, processes):
        counts.update(found)
    return counts


def _dropped_words_of_range(task: tuple[Duplicates, int]) -> Counter[str]:
    """The same for a range of keys."""
    duplicates, number = task
    first_bin, end_bin = BINS * number // duplicates.ranges, BINS * (number + 1) // duplicates.ranges
    dropped = duplicates.dropped("train", first_bin, end_bin)
    counts: Counter[str] = Counter()
    for run in range(duplicates.n_runs) if len(dropped) else ():
        keys_N, texts = _read_run(run_path(duplicates.runs_folder, run, "train"), first_bin, end_bin)
        for i in np.flatnonzero(np.isin(keys_N, dropped)):
            counts.update(texts[i].decode("utf-8").split(" "))
    return counts


def count_words(folder: Path, parts: int) -> Counter[str]:
    """Counts of the training sentences' words over all parts; memory is bounded by forgetting rare words."""
    counts: Counter[str] = Counter()
    for part in range(parts):
        for word, count in read_word_counts(run_path(folder, part, "words")):
            counts[word] += count
        if len(counts) > MAX_COUNTED_WORDS:
            counts = Counter({word: count for word, count in counts.items() if count > 1})
    return counts
