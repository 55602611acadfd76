"""What one step hands to collectives, by purpose, as formulas. Imports no torch.

They follow what DeepSpeed 0.19 and this program do, which a test compares with the bytes that ranks really exchange:

- Stages 0 to 2 all-reduce gradients, stage 2 in every micro-batch; a reduction to their owners would be half of that
  on the network, but DeepSpeed reduces whole buckets for all (`use_multi_rank_bucket_allreduce`).
- Stages 1 and 2 gather the updated weights once a step. Stage 3 gathers them once in a micro-batch and keeps them for
  its backward pass, up to a billion (`stage3_max_reuse_distance`), and scatters gradients.
- The key encoder's average is exchanged in the weights' type, once a step; where the key weights are sharded, as they
  are at stage 3, in every micro-batch, part by part.
- It is cut like the model, so that its slices are unequal at stages 1 and 2.
- All keys of a step are gathered before they enter the queues, also those that later ones push out at once.
- Sharded queues: queries are gathered in float32, and the keys that they weighted come back by an all-to-all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

WIDTHS: Mapping[str, int] = {"float16": 2, "bfloat16": 2, "mixed": 4, "float32": 4}  # bytes of a weight by precision
KEY_WIDTHS: Mapping[str, int] = {"float16": 2, "bfloat16": 2, "float32": 4}  # of a number in a queue
ID_BYTES = 8
BUCKET = 50_000_000  # elements that are sent at once, as in ds_configs
REUSE_DISTANCE = 1_000_000_000  # weights that stage 3 keeps from a forward to its backward pass
MOST_BROADCASTS = 64  # ranks beyond which unequal slices of the average are padded to the largest
MOST_IN_A_RING = 8  # ranks beyond which a few numbers are reduced in pairs (`distributed.collectives`)
SUMS = 5  # that a rank sends of a query beside its weighted keys
METRIC_NUMBERS = 25  # sums of a step in float64, beside a number for each rank
LOG_EVERY_STEPS = 10
BROADCAST = "broadcast"
IN_PAIRS = "reduction in pairs"


@dataclass(frozen=True)
class Message:
    """One kind of exchange in a step.

    Attributes:
        purpose: what for.
        kind: of collective, as `CollectiveCounter` names it.
        handed: bytes a step, of what is reduced or of all that is gathered.
        calls: collectives a step.
        control: whether it goes over the hosts' network between CPUs.
    """

    purpose: str
    kind: str
    handed: float
    calls: float
    control: bool = False


@dataclass(frozen=True)
class Plan:
    """A run, as far as its traffic depends on it.

    Attributes:
        parameters: of the trained model.
        key_parameters: of the key encoder; 0 without CSPO.
        key_size: width of a key.
        ranks, stage: of ZeRO.
        rank_sentences: of one rank in one step.
        accumulation: micro-batches that these are cut into.
        precision: of the run.
        queue_dtype, average, queue: settings of that name.
        queue_keys: keys in each queue.
        key_parts: parts of the key encoder whose weights are gathered one by one; 0: every rank has them whole.
    """

    parameters: int
    key_parameters: int
    key_size: int
    ranks: int
    stage: int
    rank_sentences: int
    accumulation: int = 1
    precision: str = "float16"
    queue_dtype: str = "float32"
    average: str = "sharded"
    queue_keys: int = 65_536
    queue: str = "replicated"
    key_parts: int = 0

    @property
    def weight_bytes(self) -> int:
        """Of all weights in the type that they are sent in."""
        return WIDTHS[self.precision] * self.parameters

    @property
    def global_batch(self) -> int:
        return self.ranks * self.rank_sentences


def messages(plan: Plan) -> list[Message]:
    """All exchanges of one step; none on one rank."""
    if plan.ranks == 1:
        return []
    every = 1 if plan.stage < 2 else plan.accumulation
    buckets = math.ceil(plan.parameters / BUCKET)
    few = IN_PAIRS if plan.ranks > MOST_IN_A_RING else "all-reduce"
    small = [
        Message("norm", "all-reduce", 8, 2),
        Message("counts", few, 8 * _counts(plan), 1, control=True),
        Message("stop", few, 2 * 8 * plan.accumulation, plan.accumulation, control=True),
        Message("metrics", "all-reduce", 8 * (METRIC_NUMBERS + plan.ranks), 1 / LOG_EVERY_STEPS),
    ]
    gradients = "reduce-scatter" if plan.stage == 3 else "all-reduce"
    found = [Message("gradients", gradients, every * plan.weight_bytes, every * buckets)]
    if plan.stage in (1, 2):
        found.append(Message("weights", "all-gather", plan.weight_bytes, 1 + buckets))
    if plan.stage == 3:
        times = every * (1 if plan.parameters <= REUSE_DISTANCE else 2)
        found.append(Message("weights", "all-gather", times * plan.weight_bytes, times * buckets))
    if plan.key_parameters:
        found += [_average(plan), *_enqueue(plan)]
        if plan.queue == "sharded":
            found += _sharded_contrast(plan)
    return found + small


def _counts(plan: Plan) -> int:
    """Numbers of the all-reduce before a step; sharded contrast needs how many queries each rank will have."""
    sharded = plan.key_parameters and plan.queue == "sharded"
    return 3 + (plan.ranks * plan.accumulation if sharded else 0)


def _sharded_contrast(plan: Plan) -> list[Message]:
    """Queries go to all ranks, and what each has summed up with its keys back to theirs; in both directions."""
    queries, calls = plan.global_batch, 2 * plan.accumulation
    return [
        Message("contrast", "all-gather", queries * (2 * plan.key_size * 4 + ID_BYTES), calls),
        Message("contrast", "all-to-all", queries * 2 * (plan.key_size + SUMS) * 4, calls),
    ]


def _average(plan: Plan) -> Message:
    if plan.average == "replicated":  # every rank reads the float32 weights and averages all of them
        return _unequal(plan, 4)
    if plan.key_parts:
        handed = plan.accumulation * WIDTHS[plan.precision] * plan.key_parameters
        return Message("average", "all-gather", handed, plan.accumulation * plan.key_parts)
    return _unequal(plan, WIDTHS[plan.precision])


def _unequal(plan: Plan, width: int) -> Message:
    """The key encoder's part of slices that are cut from the whole model (stages 1 and 2), or of its own (0 and 3)."""
    if plan.stage in (0, 3):
        return Message("average", "all-gather", width * plan.key_parameters, 1)
    if plan.ranks > MOST_BROADCASTS:  # the largest slice is all key encoder
        return Message("average", "all-gather", width * plan.parameters, 1)
    return Message("average", BROADCAST, width * plan.key_parameters, plan.ranks)


def _enqueue(plan: Plan) -> list[Message]:
    keys = plan.global_batch * 2 * plan.key_size * KEY_WIDTHS[plan.queue_dtype]
    return [
        Message("enqueue", "all-gather", keys, 1),
        Message("enqueue", "all-gather", plan.global_batch * ID_BYTES, 1),
    ]


def rounds_in_pairs(ranks: int) -> int:
    """One behind the other; what is beyond a power of two takes one before and one after."""
    rounds = ranks.bit_length() - 1
    return rounds if ranks == 1 << rounds else rounds + 2


def sent_bytes(kind: str, handed: float, ranks: int) -> float:
    """What each rank sends, in the mean, by the ring algorithms, in which no link carries more than it must; in pairs,
    at most.

    Args:
        kind: of collective.
        handed: bytes, as in `Message`.
        ranks: that take part.
    """
    if kind == IN_PAIRS:
        return handed * rounds_in_pairs(ranks)
    others = (ranks - 1) / ranks
    return handed * (2 * others if kind == "all-reduce" else others)
