"""From raw text to shards: the whole pipeline, in stages that an interrupted run does not repeat.

1. Parts of the text are split into words and written as sorted runs (`runs`), a few MiB each.
2. Sentences that stand in the text more than once are found by their hashes (`duplicates`).
3. With `train_vocab`, a vocabulary is trained on the words of the training sentences that are kept.
4. Each shard gathers its sentences from all runs, in pieces and in random order, and is written as blocks.
5. `manifest.json` is written last; before, the folder is no corpus.

Every stage works on its parts in any number of processes; the bytes do not depend on it.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

from spe_dist.data.build.finish import write_manifest
from spe_dist.data.build.plan import begin_or_continue, finished_build
from spe_dist.data.build.reading import choose_reader
from spe_dist.data.build.report import closing_table, warnings_of
from spe_dist.data.build.request import BuildRequest
from spe_dist.data.build.runs import PartSettings, make_all_runs
from spe_dist.data.build.stages import find_duplicates, make_all_shards, train_tokenizer, write_tokenizer
from spe_dist.data.shards.manifest import Manifest
from spe_dist.errors import ConfigError
from spe_dist.utils.parallel import available_processes
from spe_dist.utils.wording import how_many

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
        settings: fields of `BuildSettings` (unit, lines, words, language, format, text_field, drop_duplicates,
            train_vocab, do_lower_case, seed, held_out, block_sentences, shard_sentences, max_pieces).

    Raises:
        ConfigError: a setting is out of range or contradicts another.
        DataError: the text, the tokenizer or the output folder cannot be used as asked.
        LaunchError: a worker process was killed.
    """
    if processes is not None and processes < 1:
        raise ConfigError(f"processes={processes} does no work; choose at least 1")
    request = BuildRequest.check(inputs, output, tokenizer, settings)
    with request.open_output(overwrite):
        return _build(request, processes, max_bad_share, quiet)


def _build(request: BuildRequest, processes: int | None, max_bad_share: float, quiet: bool) -> Manifest:
    say = (lambda *_, **__: None) if quiet else print
    output, settings, plan = request.output, request.settings, request.plan()
    finished = finished_build(output, plan, request.files)
    if finished is not None:
        say(f"{output} is complete already\n{closing_table(finished)}", flush=True)
        return finished

    reader, decisions = choose_reader(request.files, settings)
    scratch, continued = begin_or_continue(output, plan, request.files)
    processes = processes or (1 if request.input_bytes < SMALL_INPUT_BYTES else available_processes())
    workers = how_many(processes, "process", "processes")
    say(f"{how_many(len(request.files), 'file')}, {how_many(request.input_bytes, 'byte')}, {workers}", flush=True)
    say("\n".join(decisions), flush=True)
    if continued:
        say("continuing an interrupted build", flush=True)

    counts_words = settings.train_vocab is not None
    part_settings = PartSettings(reader, settings.seed, settings.held_out, counts_words, scratch / "parts")
    runs = make_all_runs(part_settings, processes, max_bad_share, quiet)
    duplicates, runs = find_duplicates(output, settings, runs, processes)
    if counts_words:
        trained = partial(train_tokenizer, settings, part_settings.folder, runs.parts, duplicates, processes)
        tokenizer = write_tokenizer(output, trained)
    else:
        tokenizer = write_tokenizer(output, lambda: request.tokenizer)
    records = make_all_shards(output, settings, runs, duplicates, processes, quiet)
    manifest = write_manifest(
        output,
        settings=settings,
        reader=reader,
        tokenizer=tokenizer,
        tokenizer_name=request.tokenizer_name,
        request=plan.content,
        runs=runs,
        records=records,
    )
    shutil.rmtree(scratch)
    say(closing_table(manifest), flush=True)
    for warning in warnings_of(manifest):
        print(f"warning: {warning}", file=sys.stderr, flush=True)
    return manifest
