"""An index for shards that an earlier version made: their blocks get a SHA-256, and leave the manifest."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from spe_dist.data.shards.index import BlockEntry, BlockTable
from spe_dist.data.shards.manifest import Manifest, ShardEntry
from spe_dist.data.shards.sources import FolderSource
from spe_dist.errors import DataError
from spe_dist.utils.files import file_sha256


def write_index(folder: Path, tell: Callable[[str], None] = lambda _: None) -> Manifest:
    """Write index and manifest of the newest format version beside shards of an older one, and return the manifest.

    The shards stay as they are, and so does the manifest's hash: runs over them resume. `tell` gets each shard's name.

    Raises:
        DataError: there are no shards, a shard is damaged, or there is an index already.
    """
    manifest = Manifest.load(folder)
    if manifest.index is not None:
        raise DataError(f"{folder} has an index already ({manifest.index.name})")
    source = FolderSource(folder, str(folder))
    splits = {}
    for split, shards in manifest.splits.items():
        entries = []
        for shard in shards:
            tell(shard.name)
            entries.append(_with_digests(shard, source))
        splits[split] = tuple(entries)
    return replace(manifest, splits=splits).save(folder)


def _with_digests(shard: ShardEntry, source: FolderSource) -> ShardEntry:
    file = source.shard_file(shard)
    if not file.is_file() or file_sha256(file) != shard.sha256:
        raise DataError(f"{file} is missing or damaged (SHA-256); run `spe shards verify` on the folder")
    entries: list[BlockEntry] = []
    for entry in shard.blocks:
        digest = hashlib.sha256(source.read(shard, entry)).hexdigest()
        entries.append(replace(entry, sha256=digest))
    return replace(shard, blocks=BlockTable.of(entries))
