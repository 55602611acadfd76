"""From raw text to shards: the whole pipeline, in stages that an interrupted run does not repeat.

1. Parts of the text are split into words and written as sorted runs (`runs`), a few MiB each.
2. With `train_vocab`, a vocabulary is trained on the words of the training sentences.
3. Each shard gathers its sentences from all runs, in pieces and in random order, and is written as blocks.
4. `manifest.json` is written last; before, the folder is no corpus.

Every stage works on its parts in any number of processes; the bytes do not depend on it.
"""

from __future__ import annotations

import contextlib
import errno
import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from spe_dist.data.build.plan import (
    BuildSettings,
    Plan,
    begin_or_continue,
    finished_build,
    remove_build,
)
from spe_dist.data.build.reading import choose_reader
from spe_dist.data.build.report import closing_table, warnings_of
from spe_dist.data.build.runs import PartSettings, RunsSummary, make_all_runs
from spe_dist.data.build.stages import ShardRecord, make_all_shards, write_tokenizer
from spe_dist.data.shards.manifest import TOKENIZER_FOLDER, Manifest, ShardEntry, TokenizerEntry
from spe_dist.data.text.files import find_files, refuse_pipes, warn_of_left_out_files
from spe_dist.errors import ConfigError, DataError
from spe_dist.utils.files import file_sha256, shared_name
from spe_dist.utils.parallel import available_processes
from spe_dist.utils.wording import how_many

LOCK_TIMEOUT_S = 10.0  # workers of a run that was killed hold its lock for a moment
SMALL_INPUT_BYTES = 4 << 20  # below, starting processes takes longer than the work


def make_shards(
    inputs: Sequence[str],
    output: str,
    *,
    tokenizer: str | None = None,
    processes: int | None = None,
    max_bad_share: float = 0.01,
    overwrite: bool = False,
    quiet: bool = False,
    **settings: Any,
) -> Manifest:
    """Make shards of text files and return their manifest.

    An interrupted call continues where it stopped when it is repeated; a finished one returns at once.

    Args:
        inputs: files (plain, .gz, .xz, .zst; text or JSON lines), folders, globs.
        output: folder for shards, `tokenizer/` and `manifest.json`.
        tokenizer: name, folder or vocab.txt of a WordPiece tokenizer; or give `train_vocab`, the size of one to train.
        processes: worker processes; none: one for each core, a single one for small inputs.
        max_bad_share: share of lines that may be undecodable or no JSON before the build fails.
        overwrite: remove an earlier or unfinished build of another request.
        quiet: print nothing but warnings.
        settings: fields of `BuildSettings` (unit, lines, words, format, text_field, train_vocab, do_lower_case, seed,
            held_out, block_sentences, shard_sentences, max_pieces).

    Raises:
        ConfigError: a setting is out of range or contradicts another.
        DataError: the text, the tokenizer or the output folder cannot be used as asked.
        LaunchError: a worker process was killed.
    """
    from filelock import FileLock, Timeout

    build_settings = BuildSettings(**settings)
    if (tokenizer is None) == (build_settings.train_vocab is None):
        raise ConfigError(
            "give a tokenizer (name, folder or vocab.txt) or train_vocab (pieces to train): one of the two"
        )
    if processes is not None and processes < 1:
        raise ConfigError(f"processes={processes} does no work; choose at least 1")
    folder = Path(output).expanduser()
    files = find_files(inputs, leave_out=folder)
    refuse_pipes(files)
    warn_of_left_out_files(inputs, leave_out=folder)
    existed = folder.exists()
    with _disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = folder / ".lock"
        try:
            with FileLock(str(lock), timeout=LOCK_TIMEOUT_S):
                try:
                    if overwrite:
                        remove_build(folder)
                    manifest = _build(files, folder, build_settings, tokenizer, processes, max_bad_share, quiet)
                finally:
                    lock.unlink(missing_ok=True)
        except Timeout as error:
            raise DataError(f"{folder} is being written by another process; wait for it, or choose another") from error
        finally:
            if not existed:
                with contextlib.suppress(OSError):  # not empty, unless the build failed before it wrote anything
                    folder.rmdir()
    return manifest


def _build(
    files: list[Path],
    output: Path,
    settings: BuildSettings,
    tokenizer_source: str | None,
    processes: int | None,
    max_bad_share: float,
    quiet: bool,
) -> Manifest:
    from spe_dist.data.text.vocabulary import load_tokenizer, lower_cases, vocabulary_sha256

    say = (lambda *_, **__: None) if quiet else print
    tokenizer = load_tokenizer(tokenizer_source, settings.do_lower_case) if tokenizer_source else None
    identity = {"sha256": vocabulary_sha256(tokenizer), "lower_cases": lower_cases(tokenizer)} if tokenizer else None
    plan = Plan.make(files, settings, identity)
    finished = finished_build(output, plan, files)
    if finished is not None:
        say(f"{output} is complete already\n{closing_table(finished)}", flush=True)
        return finished

    reader, decisions = choose_reader(files, settings)
    scratch, continued = begin_or_continue(output, plan, files)
    input_bytes = sum(file.stat().st_size for file in files)
    processes = processes or (1 if input_bytes < SMALL_INPUT_BYTES else available_processes())
    workers = how_many(processes, "process", "processes")
    say(f"{how_many(len(files), 'file')}, {how_many(input_bytes, 'byte')}, {workers}", flush=True)
    say("\n".join(decisions), flush=True)
    if continued:
        say("continuing an interrupted build", flush=True)

    counts_words = settings.train_vocab is not None
    part_settings = PartSettings(reader, settings.seed, settings.held_out, counts_words, scratch / "parts")
    runs = make_all_runs(part_settings, processes, max_bad_share, quiet)
    tokenizer = write_tokenizer(output, tokenizer, settings, part_settings.folder, runs.parts)
    records = make_all_shards(output, settings, runs, processes, quiet)
    name = shared_name(tokenizer_source) if tokenizer_source else "trained"
    source = {"request": plan.content, "unit": reader.unit, "words": reader.words, "lines": runs.lines}
    manifest = _manifest(output, tokenizer, name, settings.max_pieces, runs, records, source)
    manifest = manifest.save(output)
    shutil.rmtree(scratch)
    say(closing_table(manifest), flush=True)
    for warning in warnings_of(manifest):
        print(f"warning: {warning}", file=sys.stderr, flush=True)
    return manifest


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


@contextlib.contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    """What the disk refuses, as errors that say what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DataError(
                f"no space left for {folder}; free some (about the size of the decompressed text) and run the same "
                "command again: it continues where it stopped"
            ) from error
        if error.errno in (errno.EACCES, errno.EROFS, errno.EEXIST, errno.ENOTDIR):
            raise DataError(f"{folder} cannot be written: {error}; choose another output folder") from error
        raise
