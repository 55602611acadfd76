"""Whether the ranks share the folder of the run: what one writes there, the others see within seconds."""

from __future__ import annotations

import contextlib
import secrets
import time
from pathlib import Path

from spe_dist.distributed.context import RankContext
from spe_dist.distributed.preflight.lines import Line, name_ranks
from spe_dist.utils.files import SEEN_WITHIN_S

PREFIX = ".preflight_"
SLOW_S = 2.0


def check_shared_folder(context: RankContext, output: Path) -> list[Line]:
    """A file of rank 0 is looked for by all, and one of every rank by rank 0. A collective; leaves nothing behind."""
    made = context.run_on_main(lambda: _missing_folders(output))
    token = context.broadcast_object(secrets.token_hex(8))
    problems = context.all_gather_object(_write(output, token, context.rank))
    began = time.monotonic()
    wanted = {0} if context.rank else set(range(context.ranks))
    wanted = {rank for rank in wanted if problems[rank] is None}
    unseen = _look(output, token, wanted)
    waited = context.all_gather_object((sorted(unseen), time.monotonic() - began))
    with contextlib.suppress(OSError):
        _file(output, token, context.rank).unlink()
    context.barrier()
    if context.is_main:
        for folder in made:
            with contextlib.suppress(OSError):
                folder.rmdir()
    return _lines(output, problems, waited)


def _lines(output: Path, problems: list[str | None], waited: list[tuple[list[int], float]]) -> list[Line]:
    lines = [
        Line("problem", "folder", f"rank {rank} cannot write in {output}: {problem}")
        for rank, problem in enumerate(problems)
        if problem is not None
    ][:3]
    blind = [rank for rank, (unseen, _) in enumerate(waited) if rank and unseen] or waited[0][0]
    if blind:
        text = f"{output} is not shared: {name_ranks(blind)} and rank 0 do not see each other's files"
        lines.append(Line("problem", "folder", f"{text}; choose an --output on a file system that all nodes mount"))
    if lines:
        return lines
    seconds = max(waited_s for _, waited_s in waited)
    where = f"{output} is shared by all ranks" if len(waited) > 1 else f"{output} can be written to"
    text = f"{where}, files are seen after {seconds:.1f} s" if len(waited) > 1 else where
    return [Line("warning" if seconds > SLOW_S else "ok", "folder", text)]


def _missing_folders(output: Path) -> list[Path]:
    """Those that are made here, the innermost first."""
    missing = [folder for folder in (output, *output.parents) if not folder.exists()]
    with contextlib.suppress(OSError):  # said when a file cannot be written there
        output.mkdir(parents=True, exist_ok=True)
    return missing


def _file(output: Path, token: str, rank: int) -> Path:
    return output / f"{PREFIX}{token}_{rank}"


def _write(output: Path, token: str, rank: int) -> str | None:
    """What stands in the way, in words; None where the file was written."""
    deadline = time.monotonic() + SEEN_WITHIN_S
    while True:
        try:
            _file(output, token, rank).write_text(token)
            return None
        except FileNotFoundError as error:  # a network file system may show a new folder late
            if time.monotonic() > deadline:
                return f"{error.strerror}"
            time.sleep(0.1)
        except OSError as error:
            return f"{error.strerror or error}"


def _look(output: Path, token: str, wanted: set[int]) -> set[int]:
    """Ranks whose files have not been seen, or hold something else, in `SEEN_WITHIN_S`."""
    deadline = time.monotonic() + SEEN_WITHIN_S
    unseen = set(wanted)
    while True:
        for rank in sorted(unseen):
            with contextlib.suppress(OSError):
                if _file(output, token, rank).read_text() == token:
                    unseen.discard(rank)
        if not unseen or time.monotonic() > deadline:
            return unseen
        time.sleep(0.1)
