"""Shards as earlier versions left them: every block in manifest.json (format version 1), no index beside it."""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from pathlib import Path

from spe_dist.data.shards.index import INDEX_NAME
from spe_dist.data.shards.manifest import Manifest, ShardEntry


def old_manifest(manifest: Manifest) -> str:
    """The text of a manifest of format version 1."""
    content = {field.name: getattr(manifest, field.name) for field in fields(manifest) if field.name != "index"}
    content |= {"tokenizer": asdict(manifest.tokenizer), "format_version": 1}
    content["splits"] = {name: [_shard(shard) for shard in shards] for name, shards in manifest.splits.items()}
    return json.dumps(content)


def make_old(folder: Path) -> None:
    """Turn a folder of shards into one of format version 1."""
    text = old_manifest(Manifest.load(folder))
    (folder / INDEX_NAME).unlink()
    (folder / "manifest.json").write_text(text)


def _shard(shard: ShardEntry) -> dict:
    blocks = [{name: value for name, value in asdict(block).items() if name != "sha256"} for block in shard.blocks]
    return {"name": shard.name, "sha256": shard.sha256, "bytes": shard.bytes, "blocks": blocks}
