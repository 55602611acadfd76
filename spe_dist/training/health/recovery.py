"""What follows where training becomes unstable: the run goes back to a checkpoint, or ends.

It goes back in place, in the same processes, so that no launcher has to start anything again. The steps that it then
leaves out are the one that was found, and the one before, whose update may have caused what the next one measured.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from spe_dist.config.shared import RunConfig
from spe_dist.distributed.checkpoint import Checkpoints, list_checkpoints, read_state, step_of
from spe_dist.distributed.context import RankContext
from spe_dist.errors import UnstableTraining
from spe_dist.training.health.left_out import LeftOut, replaced_in
from spe_dist.training.journal import Journal
from spe_dist.training.metrics import IsRepeated
from spe_dist.training.resume import ResumePoint


class Recovery:
    """Called on all ranks with the failure that all of them met."""

    def __init__(
        self,
        *,
        settings: RunConfig,
        context: RankContext,
        checkpoints: Checkpoints,
        journal: Journal,
        left_out: LeftOut,
        restore: Callable[[ResumePoint], None],
        repeated: Callable[[ResumePoint], IsRepeated],
    ) -> None:
        """`restore`: brings the model and all that is trained with it to a checkpoint; a collective. `repeated`: tells
        of a checkpoint which rows of metrics.jsonl a run that goes on from there makes again.
        """
        self.settings = settings
        self.context = context
        self.checkpoints = checkpoints
        self.journal = journal
        self.left_out = left_out
        self.restore = restore
        self.repeated = repeated

    def __call__(self, failure: UnstableTraining) -> ResumePoint:
        """Go back; where to. It is written to failures.jsonl, and so is an end.

        Raises:
            UnstableTraining: the failure, where the run is not to go back, has done so too often, or has no checkpoint.
        """
        point = self._target(failure)
        if point is None:
            self.journal.report(failure, action="ended")
            raise failure
        steps = [step for step in (failure.step - 1, failure.step) if step > point.position.step]
        self.left_out.steps.update(steps)
        self.left_out.rollbacks += 1
        self.checkpoints.give_up_after(point.position.step)  # first: a kill from here on repeats the roll-back at worst
        self.journal.report(failure, action="rolled back", to_step=point.position.step, left_out_steps=steps)
        self.restore(point)
        self.left_out.replaced = replaced_in(point.state)
        self.journal.go_back(point.position, self.repeated(point))
        listed = " and ".join(map(str, steps))
        self.journal.say(
            f"warning: {failure.why}. Back to {point.checkpoint}, leaving out step{'s' if len(steps) > 1 else ''} "
            f"{listed}: roll-back {self.left_out.rollbacks} of at most {self.settings.max_rollbacks} of this start"
        )
        return point

    def _target(self, failure: UnstableTraining) -> ResumePoint | None:
        """The newest whole checkpoint from before the step before the failure, else from before the failure itself."""
        if not self.settings.rollback_on_spike or self.left_out.rollbacks >= self.settings.max_rollbacks:
            return None
        found = self.context.run_on_main(lambda: list_checkpoints(self.checkpoints.folder))
        for last_step in (failure.step - 2, failure.step - 1):
            for path in found:
                point = self._open(path) if step_of(path) <= last_step else None
                if point is not None:
                    return point
        return None

    def _open(self, path: Path) -> ResumePoint | None:
        if self.checkpoints.problem_of(path) is not None:
            return None
        return ResumePoint(path, self.context.run_on_main(lambda: read_state(path)), [])
