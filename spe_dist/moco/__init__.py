"""Momentum contrast (METHOD, CSPO with MoCo): key encoder, its float32 average, and the queues of keys.

Knows nothing of deepspeed or torch.distributed: gathering over ranks and the query's weights are handed in.
"""

from spe_dist.moco.average import KeyAverage
from spe_dist.moco.checksums import check_equal, checksums
from spe_dist.moco.encoder import Collectives, MomentumKeyEncoder
from spe_dist.moco.layout import FlatLayout, Interval, PlainWeights, WeightSource
from spe_dist.moco.momentum import MomentumContrast
from spe_dist.moco.queue import KeyQueue
from spe_dist.moco.sharded_queue import ShardedKeyQueue

__all__ = [
    "Collectives",
    "FlatLayout",
    "Interval",
    "KeyAverage",
    "KeyQueue",
    "MomentumContrast",
    "MomentumKeyEncoder",
    "PlainWeights",
    "ShardedKeyQueue",
    "WeightSource",
    "check_equal",
    "checksums",
]
