"""The last stage of a build: the manifest, which makes a folder of shards a corpus."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from spe_dist.data.build.reading import TextReader
from spe_dist.data.build.runs import RunsSummary
from spe_dist.data.build.settings import BuildSettings
from spe_dist.data.build.stages import ShardRecord
from spe_dist.data.shards.manifest import TOKENIZER_FOLDER, Manifest, ShardEntry, TokenizerEntry
from spe_dist.data.text.formats.recognise import described
from spe_dist.errors import DataError
from spe_dist.utils.files import file_sha256


def write_manifest(
    output: Path,
    *,
    settings: BuildSettings,
    reader: TextReader,
    tokenizer: Any,
    tokenizer_name: str,
    request: Any,
    runs: RunsSummary,
    records: dict[str, list[ShardRecord]],
) -> Manifest:
    """Write and return the manifest of shards, whose `records` are given by split.

    Raises:
        DataError: no sentence is left for training.
    """
    formats = Counter(described(file.format, file.table) for file in reader.files)
    source = {
        "request": request,
        "formats": dict(formats),
        "unit": reader.unit,
        "words": reader.words,
        "language": reader.language,
        "lines": runs.lines,
    }
    manifest = _manifest(output, tokenizer, tokenizer_name, settings.max_pieces, runs, records, source)
    return manifest.save(output)


def _manifest(
    output: Path,
    tokenizer: Any,
    tokenizer_name: str,
    max_pieces: int,
    runs: RunsSummary,
    records: dict[str, list[ShardRecord]],
    source: dict[str, Any],
) -> Manifest:
    from spe_dist.data.text.vocabulary import SAVED_FILES, lower_cases, vocabulary_pieces, vocabulary_sha256

    skipped, noticed = Counter(runs.skipped), Counter(runs.noticed)
    splits: dict[str, tuple[ShardEntry, ...]] = {}
    for split, split_records in records.items():
        splits[split] = tuple(record.entry for record in split_records if record.entry is not None)
        for record in split_records:
            skipped.update(record.skipped)
            noticed.update(record.noticed)
    if not splits["train"]:
        raise DataError(f"no sentence is left for training: {dict(skipped)}; give more text or a larger max_pieces")
    folder = output / TOKENIZER_FOLDER
    files = {name: file_sha256(folder / name) for name in SAVED_FILES}
    return Manifest(
        tokenizer=TokenizerEntry("wordpiece", tokenizer_name, lower_cases(tokenizer), files),
        vocabulary_size=len(vocabulary_pieces(tokenizer)),
        vocabulary_sha256=vocabulary_sha256(tokenizer),
        cls_id=tokenizer.cls_token_id,
        sep_id=tokenizer.sep_token_id,
        mask_id=tokenizer.mask_token_id,
        pad_id=tokenizer.pad_token_id,
        unk_id=tokenizer.unk_token_id,
        max_pieces=max_pieces,
        splits=splits,
        skipped=dict(sorted(skipped.items())),
        noticed=dict(sorted(noticed.items())),
        source=source,
    )
