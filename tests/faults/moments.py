"""Moments of a run at which faults are put in: names of functions by part of the run.

`test_injection.py` holds that each is a function; a run that comes by none of a part fails as a reference.
"""

from __future__ import annotations

from tests.faults.injection import FILE_EVENT

_SHARED = {
    "saving": (
        "spe_dist.distributed.checkpoint:Checkpoints.save",
        "spe_dist.distributed.checkpoint:Checkpoints._checksums",
        "spe_dist.distributed.checkpoint:Checkpoints._publish",
        "spe_dist.distributed.fragments.storage:FragmentWriter.write_data",
        "spe_dist.distributed.fragments.storage:FragmentWriter.finish",
    ),
    "start-up": (
        "spe_dist.distributed.context:start_ranks",
        "spe_dist.training.run:Run.claim",
        "spe_dist.training.run:Run.write_settings",
    ),
    "step": (
        "spe_dist.distributed.engine:TrainingEngine.__call__",
        "spe_dist.distributed.engine:TrainingEngine.backward",
        "spe_dist.distributed.engine:TrainingEngine.step",
    ),
    "rows": ("spe_dist.training.metrics:MetricLog.flush",),
    "files": (FILE_EVENT,),
}
# Only a start that resumes comes by.
RESTORING = (
    "spe_dist.distributed.fragments.storage:FragmentReader.read_data",
    "spe_dist.distributed.fragments.engine:EngineFragments.load",
    "spe_dist.distributed.engine:TrainingEngine.load",
)
MOMENTS: dict[str, dict[str, tuple[str, ...]]] = {
    "pretrain": {
        **_SHARED,
        "average": (
            "spe_dist.moco.encoder:MomentumKeyEncoder.follow",
            "spe_dist.moco.average:KeyAverage.update",
            "spe_dist.moco.encoder:MomentumKeyEncoder.finish",
        ),
        "enqueue": (
            "spe_dist.moco.momentum:MomentumContrast.enqueue",
            "spe_dist.moco.queue:KeyQueue.enqueue",
            "spe_dist.moco.sharded_queue:ShardedKeyQueue.enqueue",
        ),
        "evaluation": (
            "spe_dist.pretraining.evaluation:HeldOutEvaluation.__call__",
            "spe_dist.pretraining.evaluation:HeldOutEvaluation._embed",
        ),
    },
    "finetune": {
        **_SHARED,
        "evaluation": (
            "spe_dist.finetuning.evaluation:Evaluation.score",
            "spe_dist.finetuning.evaluation:Evaluation._predict",
        ),
    },
}


def places(program: str) -> tuple[str, ...]:
    """All moments of a program."""
    return tuple(at for group in MOMENTS[program].values() for at in group)
