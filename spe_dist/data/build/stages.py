"""The further stages of a build: the tokenizer, and shards of blocks in pieces from the sorted runs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from spe_dist.data.build.duplicates import BINS, Duplicates, find_ranges
from spe_dist.data.build.plan import SCRATCH_FOLDER
from spe_dist.data.build.report import TOO_LONG, TOO_SHORT, UNKNOWN_WORDS, WITHOUT_PIECES, Progress
from spe_dist.data.build.runs import RunsSummary, count_bins, count_dropped_words, count_words, read_run, run_path
from spe_dist.data.build.settings import CONTINUE_REMEDY, MIN_WORDS, BuildSettings
from spe_dist.data.shards.blocks import Block, write_shard
from spe_dist.data.shards.manifest import SPLITS, TOKENIZER_FOLDER, ShardEntry
from spe_dist.data.text.vocabulary import PieceEncoder
from spe_dist.utils.files import atomic_folder, file_sha256, write_atomically
from spe_dist.utils.parallel import map_in_order
from spe_dist.utils.reading.json_file import read_object


@dataclass(frozen=True)
class ShardRecord:
    """What became of a shard's sentences; `entry` None: none of them was kept."""

    entry: ShardEntry | None
    skipped: Mapping[str, int]
    noticed: Mapping[str, int]

    def to_json(self) -> str:
        entry = self.entry.to_record() if self.entry else None
        return json.dumps({"entry": entry, "skipped": self.skipped, "noticed": self.noticed})

    @classmethod
    def read(cls, file: Path) -> ShardRecord:
        """The record that `to_json` gave to a file."""
        content = read_object(file, CONTINUE_REMEDY)
        entry = content["entry"]
        return cls(ShardEntry.from_record(entry) if entry else None, content["skipped"], content["noticed"])


@dataclass(frozen=True)
class ShardTask:
    """One shard to be made: the runs and the range of keys that it is made of."""

    name: str
    split: str
    sentences: int  # without duplicates, before those without enough words or with too many pieces are skipped
    n_runs: int
    bins: tuple[int, int]
    duplicates: Duplicates
    first_block: int
    blocks: int
    max_pieces: int
    runs_folder: Path
    tokenizer_folder: Path
    output: Path
    record: Path


def write_tokenizer(output: Path, make: Callable[[], Any]) -> Any:
    """The tokenizer, its files in the output folder; not made twice."""
    from spe_dist.data.text.vocabulary import load_tokenizer, save_tokenizer

    folder = output / TOKENIZER_FOLDER
    if folder.is_dir():
        return load_tokenizer(folder)
    tokenizer = make()
    with atomic_folder(folder) as written:
        save_tokenizer(tokenizer, written)
    return tokenizer


def train_tokenizer(
    settings: BuildSettings, parts_folder: Path, n_parts: int, duplicates: Duplicates, processes: int
) -> Any:
    """A tokenizer trained on the sentences for training, without the duplicates that are dropped.

    parts_folder: where the words of `n_parts` parts are counted
    """
    from spe_dist.data.text.vocabulary import check_tokenizer
    from spe_dist.data.text.vocabulary_training import train_vocabulary

    assert settings.train_vocab is not None
    counts = count_words(parts_folder, n_parts) - count_dropped_words(duplicates, processes)
    tokenizer = train_vocabulary(counts, settings.train_vocab, bool(settings.do_lower_case))
    check_tokenizer(tokenizer, "the trained vocabulary")
    return tokenizer


def find_duplicates(
    output: Path, settings: BuildSettings, runs: RunsSummary, processes: int
) -> tuple[Duplicates, RunsSummary]:
    """The duplicates of a build on one machine, and what the text holds without those that are dropped."""
    scratch = output / SCRATCH_FOLDER
    duplicates = duplicates_of(settings, scratch / "parts", runs.parts, scratch, runs.sentences)
    find_ranges(duplicates, range(duplicates.ranges), processes)
    return duplicates, runs.without(duplicates)


def duplicates_of(settings: BuildSettings, runs_folder: Path, n_runs: int, scratch: Path, sentences: int) -> Duplicates:
    """Where the duplicates of runs are found; `sentences` are all that the runs hold."""
    return Duplicates(runs_folder, n_runs, scratch / "duplicates", sentences, settings.drop_duplicates)


def make_all_shards(
    output: Path,
    settings: BuildSettings,
    runs: RunsSummary,
    duplicates: Duplicates,
    processes: int,
    quiet: bool,
) -> dict[str, list[ShardRecord]]:
    """The records of all shards by split; shards that have a record are not made again."""
    import webdataset  # noqa: F401  loaded here, once for all the processes that start from this one

    tasks = shard_tasks(output, settings, output / SCRATCH_FOLDER / "parts", runs.parts, duplicates)
    progress = Progress("shards", runs.sentences, quiet)
    records = {task.name: record for task in tasks if (record := finished_record(task)) is not None}
    missing = [task for task in tasks if task.name not in records]
    done = runs.sentences - sum(task.sentences for task in missing)
    for task, record in zip(missing, map_in_order(make_shard, missing, processes), strict=True):
        records[task.name] = record
        done += task.sentences
        progress.advance_to(done, task.sentences)
    progress.close()
    return by_split(tasks, records)


def by_split(tasks: Sequence[ShardTask], records: Mapping[str, ShardRecord]) -> dict[str, list[ShardRecord]]:
    """The records of shards, given by name, in order."""
    return {split: [records[task.name] for task in tasks if task.split == split] for split in SPLITS}


def finished_record(task: ShardTask) -> ShardRecord | None:
    """The record of a shard that an earlier run has made, if the shard is still there."""
    try:
        record = ShardRecord.read(task.record)
    except (OSError, ValueError, KeyError, TypeError):  # none, or one of another version
        return None
    entry, path = record.entry, task.output / task.name
    return record if entry is None or (path.is_file() and path.stat().st_size == entry.bytes) else None


def shard_tasks(
    output: Path, settings: BuildSettings, runs_folder: Path, n_runs: int, duplicates: Duplicates
) -> list[ShardTask]:
    """All shards of a build in order."""
    return [task for split in SPLITS for task in _shard_tasks(output, split, settings, runs_folder, n_runs, duplicates)]


def _shard_tasks(
    output: Path, split: str, settings: BuildSettings, runs_folder: Path, n_runs: int, duplicates: Duplicates
) -> Iterator[ShardTask]:
    """Cut the range of random keys into shards, and number their blocks."""
    sizes = count_bins(runs_folder, n_runs, split) - duplicates.dropped_by_bin(split)
    n_shards = min(BINS, max(1, -(-int(sizes.sum()) // settings.shard_sentences)))
    first_block = 0
    for shard in range(n_shards):
        first_bin, end_bin = BINS * shard // n_shards, BINS * (shard + 1) // n_shards
        sentences = int(np.sum(sizes[first_bin:end_bin]))
        if not sentences:
            continue
        blocks = max(1, round(sentences / settings.block_sentences))
        name = f"{split}-{shard:05d}.tar"
        yield ShardTask(
            name=name,
            split=split,
            sentences=sentences,
            n_runs=n_runs,
            bins=(first_bin, end_bin),
            duplicates=duplicates,
            first_block=first_block,
            blocks=blocks,
            max_pieces=settings.max_pieces,
            runs_folder=runs_folder,
            tokenizer_folder=output / TOKENIZER_FOLDER,
            output=output,
            record=output / SCRATCH_FOLDER / "shards" / f"{name}.json",
        )
        first_block += blocks


def make_shard(task: ShardTask) -> ShardRecord:
    """Gather a shard's sentences from all runs, tokenise them into pieces and write them as blocks.

    Returns its record: the manifest's entry and what was skipped. The record is written last.
    """
    found = [read_run(run_path(task.runs_folder, run, task.split), *task.bins) for run in range(task.n_runs)]
    keys_N = np.concatenate([run_keys for run_keys, _ in found])
    texts = [text for _, run_texts in found for text in run_texts]
    del found
    encoder = _encoder(task.tokenizer_folder, file_sha256(task.tokenizer_folder / "tokenizer.json"))
    sentences = EncodedSentences(encoder, task.max_pieces)
    order_N = np.argsort(keys_N, kind="stable")
    dropped = task.duplicates.dropped(task.split, *task.bins)
    if len(dropped):
        order_N = order_N[~np.isin(keys_N[order_N], dropped)]
    for i in order_N:
        sentences.add(texts[i].split(" "))
    entry = None
    if sentences.n_sentences:
        blocks = sentences.blocks(min(task.blocks, sentences.n_sentences))
        entry = write_shard(task.output / task.name, enumerate(blocks, task.first_block))
    record = ShardRecord(entry, dict(sentences.skipped), dict(sentences.noticed))
    write_atomically(task.record, record.to_json())
    return record


@lru_cache(maxsize=1)
def _encoder(tokenizer_folder: Path, sha256: str) -> PieceEncoder:
    """Kept from shard to shard; `sha256` distinguishes it from another tokenizer that was in the same folder before."""
    return PieceEncoder.from_folder(tokenizer_folder)


class EncodedSentences:
    """Sentences in pieces as they come, to be cut into blocks at the end."""

    def __init__(self, encoder: PieceEncoder, max_pieces: int) -> None:
        self._encoder = encoder
        self._max_pieces = max_pieces - 2
        self._ids: list[int] = []
        self._word_pieces: list[int] = []  # pieces of each word
        self._sentence_pieces: list[int] = []
        self._sentence_words: list[int] = []
        self.skipped: Counter[str] = Counter()
        self.noticed: Counter[str] = Counter()

    @property
    def n_sentences(self) -> int:
        return len(self._sentence_pieces)

    def add(self, words: Sequence[str]) -> None:
        pieces = self._encoder.pieces(words)
        if () in pieces:
            self.noticed[WITHOUT_PIECES] += pieces.count(())
            pieces = [word for word in pieces if word]
        if len(pieces) < MIN_WORDS:
            self.skipped[TOO_SHORT] += 1
            return
        ids = list(chain.from_iterable(pieces))
        if len(ids) > self._max_pieces:
            self.skipped[TOO_LONG] += 1
            return
        unknown = self._encoder.unknown_id
        if unknown in ids:
            self.noticed[UNKNOWN_WORDS] += sum(1 for word in pieces if unknown in word)
        self._ids += ids
        self._word_pieces += map(len, pieces)
        self._sentence_pieces.append(len(ids))
        self._sentence_words.append(len(pieces))

    def blocks(self, count: int) -> Iterable[Block]:
        """`count` blocks of equally many sentences, +-1."""
        id_type = np.uint16 if self._encoder.vocabulary_size <= 1 << 16 else np.int32
        first_type = np.uint8 if self._max_pieces <= 1 << 8 else np.int16
        ids_T = np.array(self._ids, dtype=id_type)
        pieces_N1, words_N1 = _borders(self._sentence_pieces), _borders(self._sentence_words)
        word_starts_W = _borders(self._word_pieces)[:-1]
        first_pieces_W = (word_starts_W - np.repeat(pieces_N1[:-1], self._sentence_words)).astype(first_type)
        cuts = [self.n_sentences * i // count for i in range(count + 1)]
        for a, b in pairwise(cuts):
            yield Block(
                first_sentence_id=0,
                piece_ids_T=ids_T[pieces_N1[a] : pieces_N1[b]],
                piece_offsets_N1=(pieces_N1[a : b + 1] - pieces_N1[a]).astype(np.int32),
                first_pieces_W=first_pieces_W[words_N1[a] : words_N1[b]],
                word_offsets_N1=(words_N1[a : b + 1] - words_N1[a]).astype(np.int32),
            )


def _borders(lengths: Sequence[int]) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(np.array(lengths, dtype=np.int64))])
