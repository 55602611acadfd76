"""`spe doctor --preflight`: whether a run would work here, asked by all ranks of a launch before it begins."""

from __future__ import annotations

import time
from pathlib import Path

from spe_dist.cli.exits import DONE, FAILED
from spe_dist.cli.options.extras import TO_TRAIN, require
from spe_dist.utils.tables import aligned
from spe_dist.utils.wording import how_many

TIMEOUT_S = 60.0


def preflight(output: Path | None, timeout_s: float = TIMEOUT_S) -> int:
    """Check, print a line for each finding on rank 0, and return the same exit status on all ranks."""
    require(*TO_TRAIN)
    from spe_dist.distributed.preflight.check import check_launch

    began = time.monotonic()
    lines, problem = check_launch(output, timeout_s)
    if lines:
        print("\n".join(aligned([(line.level, line.topic, line.text) for line in lines], "<<<")))
        found = [
            how_many(count, level)
            for level in ("problem", "warning")
            if (count := sum(line.level == level for line in lines))
        ]
        print(f"preflight: {', '.join(found) or 'no problems'}, {time.monotonic() - began:.1f} s", flush=True)
    return FAILED if problem else DONE
