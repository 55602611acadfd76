"""Sentences that the text holds more than once: found over the whole corpus, counted, and dropped where asked for.

Which sentences are equal is decided by hashes: each part writes those of its sentences beside its runs, sorted. A range
of hashes is then read from all of them at a time, and of equal sentences the first one in the text stays. What is
dropped is listed by the random keys of the runs, so that a shard passes over it. Memory holds one range, never the
corpus, and nothing depends on how the work was divided.

Files of hashes: uint32 bins [BINS + 1] (where each range of hashes starts), then HASHES [N]. Lists of what is dropped:
the same of uint64 keys; an empty file where nothing is.

Legend of the shape suffixes: N sentences
"""

from __future__ import annotations

import hashlib
import json
import os
import unicodedata
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from spe_dist.data.build.report import EXACT_DUPLICATES, KEPT, NEAR_DUPLICATES
from spe_dist.data.build.settings import CONTINUE_REMEDY, DropChoice
from spe_dist.data.shards.manifest import SPLITS
from spe_dist.utils.files import write_atomically
from spe_dist.utils.parallel import map_in_order
from spe_dist.utils.reading.json_file import read_object

BIN_BITS = 12
BINS = 1 << BIN_BITS  # ranges of hashes or keys, the finest cut
RANGE_SENTENCES = 2 << 20  # compared at a time: some 200 MB
HASHES = np.dtype([("text", "<u8"), ("exact", "<u4"), ("key", "<u8"), ("held_out", "u1")])
_HEAD_BYTES = 4 * (BINS + 1)

Kind = Literal["exact", "near"]


def text_hash(text: str) -> int:
    """64 bits of a sentence's text without case, spaces and Unicode's variants of letters."""
    if text.isascii():
        normalised = "".join(text.lower().split())
    else:
        normalised = "".join(unicodedata.normalize("NFKC", text).casefold().split())
    digest = hashlib.blake2b(normalised.encode("utf-8", "replace"), digest_size=8).digest()
    return int.from_bytes(digest, "big")


def exact_hash(text: str) -> int:
    """32 bits that, besides `text_hash`, distinguish a sentence from those with the same letters."""
    return zlib.crc32(text.encode("utf-8", "replace"))


def hashes_path(folder: Path, run: int) -> Path:
    """The file with the hashes of a run."""
    return folder / f"{run:06d}.hashes"


def bin_borders(sorted_N: np.ndarray) -> np.ndarray:
    """uint32 [BINS + 1]: where each range of ascending 64-bit numbers begins."""
    return np.searchsorted(sorted_N >> np.uint64(64 - BIN_BITS), np.arange(BINS + 1, dtype=np.uint64)).astype("<u4")


def write_hashes(path: Path, hashes_N: np.ndarray) -> None:
    """Write the hashes of sentences, which stand in the order of the text."""
    hashes_N = hashes_N[np.argsort(hashes_N["text"], kind="stable")]
    write_atomically(path, bin_borders(hashes_N["text"]).tobytes() + hashes_N.tobytes())


def read_hashes(path: Path, first_bin: int = 0, end_bin: int = BINS) -> np.ndarray:
    """HASHES [N] of a range of hashes."""
    with open(path, "rb") as file:
        bins = np.frombuffer(file.read(_HEAD_BYTES), "<u4")
        first, end = int(bins[first_bin]), int(bins[end_bin])
        file.seek(_HEAD_BYTES + HASHES.itemsize * first)
        return np.frombuffer(file.read(HASHES.itemsize * (end - first)), HASHES)


def merge_hashes(paths: Sequence[Path], merged: Path) -> None:
    """Write the hashes of several parts as one file; equal ones stay in the order of the parts."""
    write_hashes(merged, np.concatenate([read_hashes(path) for path in paths]))


@dataclass(frozen=True)
class Duplicates:
    """Where the duplicates of a build are found and listed.

    runs_folder: of the files of hashes, one for each of `n_runs` runs, in the order of the text
    folder: of what is found
    sentences: of all splits, which decide into how many ranges the hashes are cut
    """

    runs_folder: Path
    n_runs: int
    folder: Path
    sentences: int
    drop: DropChoice

    @property
    def ranges(self) -> int:
        return min(BINS, max(1, -(-self.sentences // RANGE_SENTENCES)))

    def find(self, number: int) -> dict[str, int]:
        """Find the duplicates of a range and list those to be dropped; the record is written last and returned."""
        record = self.folder / f"{number:05d}.json"
        if record.is_file():
            return read_object(record, CONTINUE_REMEDY)
        first_bin, end_bin = BINS * number // self.ranges, BINS * (number + 1) // self.ranges
        paths = [hashes_path(self.runs_folder, run) for run in range(self.n_runs)]
        hashes_N = np.concatenate([read_hashes(path, first_bin, end_bin) for path in paths])
        is_exact_N, is_near_N = find_repeated(hashes_N)
        drops_N = is_exact_N & (self.drop != "none") | is_near_N & (self.drop == "near")
        self.folder.mkdir(exist_ok=True)
        for split in SPLITS:
            is_of_split_N = hashes_N["held_out"] == (split == "held_out")
            keys = np.sort(hashes_N["key"][drops_N & is_of_split_N]).astype("<u8")
            data = bin_borders(keys).tobytes() + keys.tobytes() if len(keys) else b""
            write_atomically(self._list(number, split), data)
        counts = {"exact": int(is_exact_N.sum()), "near": int(is_near_N.sum())}
        write_atomically(record, json.dumps(counts))
        return counts

    def counts(self) -> dict[str, int]:
        """How many there are of each kind, over all ranges."""
        found = [read_object(self.folder / f"{number:05d}.json", CONTINUE_REMEDY) for number in range(self.ranges)]
        return {kind: sum(counts[kind] for counts in found) for kind in ("exact", "near")}

    def dropped(self, split: str, first_bin: int, end_bin: int) -> np.ndarray:
        """uint64: the keys of dropped sentences in a range of keys."""
        found = [np.zeros(0, "<u8")]
        for number in range(self.ranges):
            with open(self._list(number, split), "rb") as file:
                bins = np.frombuffer(file.read(_HEAD_BYTES), "<u4")
                if len(bins):
                    file.seek(8 * int(bins[first_bin]), os.SEEK_CUR)
                    found.append(np.frombuffer(file.read(8 * int(bins[end_bin] - bins[first_bin])), "<u8"))
        return np.concatenate(found)

    def dropped_by_bin(self, split: str) -> np.ndarray:
        """int64 [BINS]: dropped sentences in each range of keys."""
        total = np.zeros(BINS, np.int64)
        for number in range(self.ranges):
            bins = np.fromfile(self._list(number, split), "<u4", BINS + 1)
            if len(bins):
                total += np.diff(bins.astype(np.int64)).astype(np.int64)
        return total

    def _list(self, number: int, split: str) -> Path:
        return self.folder / f"{number:05d}.{split}"


def find_ranges(duplicates: Duplicates, numbers: Iterable[int], processes: int) -> None:
    """Find the duplicates of these ranges; not again what was found before."""
    for _ in map_in_order(duplicates.find, list(numbers), processes):
        pass


def find_repeated(hashes_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """bool [N], [N]: sentences that stood before word for word, and others that stood before in the same letters.

    `hashes_N`: HASHES in the order of the text, at least those of the same letters.
    """
    is_exact_N, is_near_N = np.zeros(len(hashes_N), bool), np.zeros(len(hashes_N), bool)
    order = np.argsort(hashes_N["text"], kind="stable")
    texts = hashes_N["text"][order]
    goes_on = texts[1:] == texts[:-1]
    is_near_N[order[1:][goes_on]] = True
    is_repeated = np.zeros(len(hashes_N), bool)
    is_repeated[1:] |= goes_on
    is_repeated[:-1] |= goes_on
    several = order[is_repeated]  # few, mostly
    chosen = hashes_N[several]
    by_both = np.lexsort((chosen["exact"], chosen["text"]))  # stable: equal ones stay in order
    chosen = chosen[by_both]
    equal = (chosen["text"][1:] == chosen["text"][:-1]) & (chosen["exact"][1:] == chosen["exact"][:-1])
    is_exact_N[several[by_both[1:][equal]]] = True
    return is_exact_N, is_near_N & ~is_exact_N


def dropped_and_noticed(counts: Mapping[str, int], drop: DropChoice) -> tuple[dict[str, int], dict[str, int]]:
    """(what is dropped, what is kept) of the duplicates found, by the names that reports use."""
    names = {"exact": EXACT_DUPLICATES, "near": NEAR_DUPLICATES}
    is_dropped = {"exact": drop != "none", "near": drop == "near"}
    found = [kind for kind in names if counts[kind]]
    dropped = {names[kind]: counts[kind] for kind in found if is_dropped[kind]}
    return dropped, {f"{names[kind]}{KEPT}": counts[kind] for kind in found if not is_dropped[kind]}
