"""The first stages of a build: all text as sorted runs of sentences in words, and the counts of those words."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from spe_dist.data.build.report import Progress
from spe_dist.data.build.stages import PartSettings, make_runs, read_word_counts, record_path, run_path
from spe_dist.data.text.files import Part, read_parts
from spe_dist.data.text.lines import Skips, check_bad_lines
from spe_dist.data.text.words import spacy_splitter
from spe_dist.errors import DataError
from spe_dist.utils.files import write_atomically
from spe_dist.utils.parallel import map_in_order

ENOUGH_BAD_LINES = 1_000  # from which a build fails before it has seen all lines
MAX_COUNTED_WORDS = 3_000_000  # different words held while counting; beyond, those met once are forgotten


@dataclass
class RunsSummary:
    """What the text held."""

    parts: int
    lines: int
    sentences: int
    skipped: dict[str, int]
    noticed: dict[str, int]


def make_all_runs(settings: PartSettings, processes: int, max_bad_share: float, quiet: bool) -> RunsSummary:
    """Make the runs of all parts that have none; at once if that was finished before.

    DataError where too many lines are bad or no sentence is left.
    """
    done = settings.folder.with_suffix(".json")
    if done.is_file():
        return RunsSummary(**json.loads(done.read_bytes()))
    if settings.reader.words == "tokenizer" or settings.reader.unit == "documents":
        spacy_splitter().words("Loaded here, once for all the processes that start from this one.")
    skips, noticed, sentences, n_parts = Skips(), Counter[str](), 0, 0
    progress = Progress("words", sum(file.path.stat().st_size for file in settings.reader.files), quiet)
    for read_bytes, record in _records(settings, processes):
        skips.lines += record["lines"]
        skips.counts.update(record["skipped"])
        skips.first_bad = skips.first_bad or record["first_bad"]
        noticed.update(record["noticed"])
        sentences += record["sentences"]
        n_parts += 1
        check_bad_lines(skips, max_bad_share, ENOUGH_BAD_LINES)
        progress.advance_to(read_bytes, record["sentences"])
    progress.close()
    check_bad_lines(skips, max_bad_share)
    if not sentences:
        counts = ", ".join(f"{count:,} {reason}" for reason, count in skips.counts.items()) or "nothing else"
        raise DataError(
            f"the input has {skips.lines:,} lines but no sentence to keep ({counts}); "
            "check the files and the text field"
        )
    summary = RunsSummary(n_parts, skips.lines, sentences, dict(skips.counts), dict(noticed))
    write_atomically(done, json.dumps(asdict(summary)))
    return summary


def _records(settings: PartSettings, processes: int) -> Iterator[tuple[int, dict[str, Any]]]:
    """(bytes of the input read, record) of all parts in order; parts that have a record are not made again."""
    waiting: list[tuple[int, dict[str, Any] | None]] = []

    def tasks() -> Iterator[tuple[Part, PartSettings]]:
        paths = [file.path for file in settings.reader.files]
        for part in read_parts(paths, settings.reader.break_at):
            path = record_path(settings.folder, part.index)
            record = json.loads(path.read_bytes()) if path.is_file() else None
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


def count_words(folder: Path, parts: int) -> Counter[str]:
    """Counts of the training sentences' words over all parts; memory is bounded by forgetting rare words."""
    counts: Counter[str] = Counter()
    for part in range(parts):
        for word, count in read_word_counts(run_path(folder, part, "words")):
            counts[word] += count
        if len(counts) > MAX_COUNTED_WORDS:
            counts = Counter({word: count for word, count in counts.items() if count > 1})
    return counts
