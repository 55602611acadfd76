"""One start of a run, of either training: its output folder, who may write there, requests to stop, its end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from spe_dist.config.loading import to_yaml
from spe_dist.config.shared import EngineSettings
from spe_dist.distributed.checkpoint import list_checkpoints
from spe_dist.distributed.context import RankContext
from spe_dist.distributed.engine import TrainingEngine
from spe_dist.distributed.fence import Fence
from spe_dist.distributed.launch import node_name, placement_table
from spe_dist.distributed.stop import StopRequest
from spe_dist.training.agreement import Agreement
from spe_dist.training.background_save import BackgroundSave
from spe_dist.training.health.finite import Named
from spe_dist.training.health.left_out import LeftOut
from spe_dist.training.health.recovery import Recovery
from spe_dist.training.journal import Journal, Saving, WriteCheckpoint
from spe_dist.training.metrics import IsRepeated, MetricLog, not_repeated
from spe_dist.training.progress import ProgressLine
from spe_dist.training.resume import ResumePoint
from spe_dist.training.saved_state import RunCheckpoints
from spe_dist.utils.files import check_output, remove_unfinished, write_atomically
from spe_dist.utils.leftovers import remove_leftovers
from spe_dist.utils.run_files import CHECKPOINTS_FOLDER, CONFIG_FILE


class Run:
    """What a start of a run needs beside its model and data. All ranks build one and call its methods together."""

    def __init__(self, config: EngineSettings, context: RankContext) -> None:
        self.config = config
        self.context = context
        self.output = Path(config.train.output)
        self.stop = StopRequest(self.output if context.is_main else None)  # the file is looked for by one rank
        context.run_on_main(lambda: check_output(self.output))
        self._fence = Fence(self.output)
        keep = config.train.keep_checkpoints
        self.checkpoints = RunCheckpoints(self.output / CHECKPOINTS_FOLDER, keep, context, self._fence)
        self._found = context.run_on_main(self._newest)

    def claim(self, start: ResumePoint) -> bool:
        """Become the one start that may write into the output folder; a run that is active there ends.

        It comes after all that may refuse this start, so that a start which is refused disturbs nobody. Returns
        whether `start` still is where to begin: False where the active run has saved in the meantime, which it cannot
        any more. Raises CheckpointError.
        """
        self.context.run_on_main(self._fence.claim)
        self.stop.remove_older_file()
        self.context.run_on_main(lambda: remove_unfinished(self.output))
        if self.context.local_rank == 0:
            remove_leftovers()
        newest = self.context.run_on_main(self._newest)
        chosen = start.checkpoint.name if start.checkpoint is not None else None
        if self.context.run_on_main(lambda: start.is_older_one_of(self.checkpoints.folder)):
            self.checkpoints.give_up_after(start.position.step)
        return self.config.train.resume != "auto" or newest in (self._found, chosen)

    def _newest(self) -> str | None:
        return next((path.name for path in list_checkpoints(self.checkpoints.folder)), None)

    def write_settings(self) -> None:
        """Write config.yaml into the output folder. Raises CheckpointError where another start has taken over since."""
        self.checkpoints.check_owner()
        self.context.run_on_main(lambda: write_atomically(self.output / CONFIG_FILE, to_yaml(self.config)))

    def describe_machine(self, engine: TrainingEngine, model_note: str = "") -> list[str]:
        """Lines on where the ranks are and what the engine holds."""
        device = self.context.device
        gpu = f" {torch.cuda.get_device_name(device)}" if device.type == "cuda" else ""
        ranks = self.context.all_gather_object((self.context.rank, node_name(), f"{device}{gpu}"))
        return [
            placement_table(ranks),
            f"model: {engine.n_parameters():,} parameters{model_note}; ZeRO stage {engine.zero_stage}, "
            f"{engine.precision}",
            *filter(None, [engine.note]),
        ]

    def journal(
        self,
        *,
        engine: TrainingEngine,
        start: ResumePoint,
        total_steps: int,
        log: MetricLog,
        terms: Iterable[str],
        capture: Callable[[bool], WriteCheckpoint],
        state_pieces: Callable[[], Iterable[Named]],
        left_out: LeftOut,
        run_state: Mapping[str, Any],
        rates: str = "learning_rate",
    ) -> Journal:
        """The journal of this start. `run_state` goes into each checkpoint; the rest as `Journal` takes it."""
        train = self.config.train
        background = BackgroundSave(self.checkpoints, train.timeout_s) if train.background_saving else None
        return Journal(
            settings=self.config.train,
            engine=engine,
            position=start.position,
            log=log,
            progress=ProgressLine(total_steps, enabled=self.context.is_main, terms=tuple(terms)),
            saving=Saving(self.checkpoints, capture, run_state, background),
            agreement=Agreement(self.context, self.stop, train.checkpoint_every_minutes, background),
            state_pieces=state_pieces,
            left_out=left_out,
            rates=rates,
        )

    def recovery(
        self,
        journal: Journal,
        restore: Callable[[ResumePoint], None],
        repeated: Callable[[ResumePoint], IsRepeated] = lambda _: not_repeated,
    ) -> Recovery:
        """What follows where training becomes unstable; `restore` and `repeated` as `Recovery` takes them."""
        return Recovery(
            settings=self.config.train,
            context=self.context,
            checkpoints=self.checkpoints,
            journal=journal,
            left_out=journal.left_out,
            restore=restore,
            repeated=repeated,
        )

    def stop_reason(self) -> str:
        """Why the ranks have stopped, by the first of them that was asked to."""
        return next(reason for reason in self.context.all_gather_object(self.stop.reason) if reason)

    def end(self, journal: Journal, lines: Iterable[str], finished: bool) -> None:
        """Print the closing lines and close the log. In a stopped run signals stay without effect: its ranks leave."""
        journal.log.close()
        journal.say(*lines, *journal.left_out.summary())
        self.context.barrier()
        if finished:
            self.stop.close()
