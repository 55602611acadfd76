"""Pre-training that is saved in one engine goes on in any other: ranks, stage, offload, precision, kept averages."""

from __future__ import annotations

import itertools

import pytest
from resume_matrix import EngineKind, resume_all, save_all

pytestmark = [pytest.mark.distributed, pytest.mark.slow]

FIRST, LAST = 1e-6, 1e-5  # relative difference of the loss in the first step and in the tenth
AT_ONCE = 40  # pairs that the same processes resume one after another
KINDS = [
    EngineKind(ranks, stage, offload, average=average)
    for ranks, average in ((1, "sharded"), (2, "sharded"), (2, "replicated"), (4, "sharded"))
    for stage, offload in ((0, False), (1, False), (2, False), (3, False), (2, True), (3, True))
    if stage or ranks == 1
]
# Every kind of some ranks once as what is saved and once as what goes on, in other ranks and at another stage.
FEW = [
    (EngineKind(1, 0), EngineKind(2, 1)),
    (EngineKind(1, 3, True), EngineKind(2, 2, True, average="replicated")),
    (EngineKind(2, 2), EngineKind(1, 0)),
    (EngineKind(2, 3), EngineKind(1, 2, True)),
    (EngineKind(2, 1, average="replicated"), EngineKind(2, 3, sub_group=2_000)),
    (EngineKind(2, 2, True), EngineKind(2, 2, True)),
    (EngineKind(2, 3, sub_group=2_000), EngineKind(2, 3, sub_group=2_000)),
    (EngineKind(1, 0), EngineKind(1, 0)),
]
LOW = [
    (EngineKind(2, 1, precision="bfloat16"), EngineKind(2, 3, precision="float16")),
    (EngineKind(2, 3, precision="float16"), EngineKind(1, 2, precision="float16")),
]
FURTHER_LOW = [
    (EngineKind(2, 2, precision="bfloat16"), EngineKind(1, 1, precision="bfloat16")),
    (EngineKind(1, 0, precision="mixed"), EngineKind(2, 2, precision="bfloat16")),
    (EngineKind(2, 1, precision="float16"), EngineKind(1, 0)),
]


def run(run_ranks, pairs, folder):
    """(saved, resumed, rows of the run that was not interrupted, rows of the one that was) for each pair.

    Stage 3 comes last in each process: DeepSpeed's stage 3 replaces `torch.nn.functional.linear` for good by one that
    rounds otherwise, which no run of a single engine sees.
    """
    pairs = sorted(pairs, key=lambda pair: (pair[1].stage == 3, pair[0].stage == 3))
    rows = {}
    for ranks in sorted({saved.ranks for saved, _ in pairs}):
        kinds = dict.fromkeys(saved for saved, _ in pairs if saved.ranks == ranks)
        kinds = sorted(kinds, key=lambda kind: kind.stage == 3)
        by_rank = run_ranks(save_all, ranks, kinds, folder, timeout_s=1_200)
        rows |= by_rank[0]
    for ranks in sorted({kind.ranks for _, kind in pairs}):
        mine = [pair for pair in pairs if pair[1].ranks == ranks]
        for first in range(0, len(mine), AT_ONCE):
            some = mine[first : first + AT_ONCE]
            found = run_ranks(resume_all, ranks, some, folder, timeout_s=1_200)
            assert all(of_rank == found[0] for of_rank in found)
            for (saved, kind), resumed in zip(some, found[0], strict=True):
                yield saved, kind, rows[saved], resumed


def check(saved, kind, expected, found):
    where = f"{saved} -> {kind}"
    if saved == kind:
        assert found == expected, where
    for number, limit in ((0, FIRST), (-1, LAST)):
        assert found[number][0] == pytest.approx(expected[number][0], rel=limit), where
    for one, other in zip(found, expected, strict=True):
        assert one[1:] == other[1:], where  # applied, ids of both queues, loss scale


def test_a_few_pairs_of_engines_go_on_as_if_uninterrupted(run_ranks, tmp_path):
    for case in run(run_ranks, FEW, tmp_path):
        check(*case)


@pytest.mark.long
@pytest.mark.timeout(7_200)
def test_every_pair_of_engines_goes_on_as_if_uninterrupted(run_ranks, tmp_path):
    pairs = list(itertools.product(KINDS, repeat=2))
    cases = list(run(run_ranks, pairs, tmp_path))
    assert len(cases) == len(pairs)
    for case in cases:
        check(*case)


@pytest.mark.parametrize("pairs", [LOW, pytest.param(FURTHER_LOW, marks=pytest.mark.long)])
def test_another_precision_goes_on_from_the_float32_masters(run_ranks, tmp_path, pairs):
    """Losses differ by what the precisions resolve; masters, moments, average and the float16 loss scale are kept."""
    for saved, kind, expected, found in run(run_ranks, pairs, tmp_path):
        where = f"{saved} -> {kind}"
        for one, other in zip(found, expected, strict=True):
            assert one[0] == pytest.approx(other[0], rel=0.02), where
            assert one[2] == other[2], where  # ids
        if saved.precision == kind.precision == "float16":
            assert [row[3] for row in found] == [row[3] for row in expected] and len({row[3] for row in found}) > 1
