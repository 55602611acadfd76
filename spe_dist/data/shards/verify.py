"""Compare a folder of shards with its manifest: every checksum, every member, every array.

WebDataset skips damaged tars in silence, so each shard is also read through it and what it yields is counted.
"""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from spe_dist.data.shards.blocks import Block
from spe_dist.data.shards.manifest import SPLITS, TOKENIZER_FOLDER, Manifest, ShardEntry
from spe_dist.data.shards.sources import fault_of
from spe_dist.errors import DataError
from spe_dist.utils.files import file_sha256
from spe_dist.utils.wording import how_many


@dataclass
class VerifyReport:
    """What was checked and what was wrong, in words."""

    shards: int = 0
    blocks: int = 0
    sentences: int = 0
    words: int = 0
    pieces: int = 0
    bytes: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.problems

    def __str__(self) -> str:
        checked = (
            f"checked {how_many(self.shards, 'shard')} ({how_many(self.bytes, 'byte')}), "
            f"{how_many(self.blocks, 'block')}, {how_many(self.sentences, 'sentence')}, "
            f"{how_many(self.words, 'word')}, {how_many(self.pieces, 'piece')}: size, SHA-256, members, arrays, "
            "and what webdataset reads"
        )
        if self.ok:
            return f"{checked}\nall as the manifest says"
        return "\n".join(
            [checked, f"{how_many(len(self.problems), 'problem')}:", *(f"  {problem}" for problem in self.problems)]
        )


def verify_shards(folder: Path, manifest: Manifest, shard_file: Callable[[ShardEntry], Path]) -> VerifyReport:
    """Check all splits in `folder`; `shard_file` gives a shard's file, or a DataError why it cannot be fetched."""
    report = VerifyReport()
    listed = set()
    for shards in manifest.splits.values():
        for shard in shards:
            listed.add(shard.name)
            try:
                file = shard_file(shard)
            except DataError as error:
                report.problems.append(str(error))
            else:
                _verify_shard(file, shard, manifest, report)
    for path in sorted(path for split in SPLITS for path in folder.glob(f"{split}-*.tar")):
        if path.name not in listed:
            report.problems.append(f"{path.name}: a shard that the manifest does not list; remove it")
    _verify_tokenizer(folder / TOKENIZER_FOLDER, manifest, report)
    return report


def _verify_shard(path: Path, shard: ShardEntry, manifest: Manifest, report: VerifyReport) -> None:
    report.shards += 1
    if not path.is_file():
        report.problems.append(f"{shard.name}: missing")
        return
    size = path.stat().st_size
    report.bytes += size
    problems = []
    if size != shard.bytes:
        problems.append(f"{shard.name}: {size:,} bytes instead of {shard.bytes:,}")
    if size != shard.bytes or file_sha256(path) != shard.sha256:  # not to hash what is terabytes too large
        problems.append(f"{shard.name}: SHA-256 is not the manifest's")
    problems += [f"{shard.name}, block {problem}" for problem in _block_problems(path, shard, manifest, report)]
    problems += [f"{shard.name}: {problem}" for problem in _member_problems(path, shard)]
    problems += [f"{shard.name}: {problem}" for problem in _webdataset_problems(path, shard)]
    report.problems += problems


def _block_problems(path: Path, shard: ShardEntry, manifest: Manifest, report: VerifyReport) -> list[str]:
    problems = []
    with open(path, "rb") as file:
        for entry in shard.blocks:
            file.seek(entry.offset)
            data = file.read(entry.bytes)
            if fault := fault_of(data, entry):
                problems.append(f"{entry.member}: {fault}")
                continue
            try:
                block = Block.from_bytes(data)
            except DataError as error:
                problems.append(f"{entry.member}: {error}")
                continue
            found = (block.n_sentences, block.n_words, block.n_pieces)
            if found != (entry.sentences, entry.words, entry.pieces):
                problems.append(f"{entry.member}: sentences, words, pieces are {found}, not as in the manifest")
            elif problem := block.problem(manifest.vocabulary_size, manifest.max_pieces):
                problems.append(f"{entry.member}: {problem}")
            report.blocks += 1
            report.sentences += block.n_sentences
            report.words += block.n_words
            report.pieces += block.n_pieces
    return problems


def _member_problems(path: Path, shard: ShardEntry) -> list[str]:
    expected = {entry.member: (entry.offset, entry.bytes) for entry in shard.blocks}
    try:
        with tarfile.open(path) as tar:
            found = {member.name: (member.offset_data, member.size) for member in tar}
    except tarfile.TarError as error:
        return [f"no readable tar: {error}"]
    problems = [f"member {name} is missing" for name in expected.keys() - found.keys()]
    problems += [f"member {name:.200} is not in the manifest" for name in found.keys() - expected.keys()]
    moved = [name for name in expected.keys() & found.keys() if expected[name] != found[name]]
    return sorted(problems + [f"member {name} has another place or size" for name in moved])


def _webdataset_problems(path: Path, shard: ShardEntry) -> list[str]:
    """Read the shard as any user of webdataset does and compare what comes out."""
    import webdataset

    if huge := _first_huge_member(path):
        return [f"member {huge:.200} declares more bytes than the shard has: webdataset is not tried"]
    dataset = webdataset.WebDataset(str(path.resolve()), shardshuffle=False, empty_check=False)
    try:
        found = [(sample["__key__"], len(sample.get("npz", b""))) for sample in dataset]
    except Exception as error:  # whatever webdataset lets through is a finding, not a crash
        return [f"webdataset stops with {type(error).__name__}: {error}"]
    expected = [(entry.member.removesuffix(".npz"), entry.bytes) for entry in shard.blocks]
    if found != expected:
        return [f"webdataset yields {len(found)} of {len(expected)} blocks as listed"]
    return []


def _first_huge_member(path: Path) -> str | None:
    """A member that is larger than its file, such as one with terabytes of holes, all of which would be read."""
    with suppress(tarfile.TarError), tarfile.open(path) as tar:
        return next((member.name for member in tar if member.size > path.stat().st_size), None)
    return None


def _verify_tokenizer(folder: Path, manifest: Manifest, report: VerifyReport) -> None:
    for name, sha256 in manifest.tokenizer.files.items():
        path = folder / name
        if not path.is_file():
            if folder.is_dir() or folder.parent.joinpath("manifest.json").is_file():
                report.problems.append(f"{folder.name}/{name}: missing")
        elif file_sha256(path) != sha256:
            report.problems.append(f"{folder.name}/{name}: SHA-256 is not the manifest's")
