"""Numbers of many ranks put in order: as piece by piece, in copies whose number does not grow with the ranks."""

import itertools

import pytest
import torch
from transformers import BertConfig, BertModel

from spe_dist.moco.layout import FlatLayout, Interval, even_split
from spe_dist.moco.runs import Piece, runs_of, source_views, target_views

SHAPES = {"table": (1_001, 24), "kernel": (24, 96), "bias": (96,), "norm": (24,), "scale": (1,)}
LAYOUT = FlatLayout.of_shapes(SHAPES)


def of_parameters(ranks, layout=LAYOUT):
    """Each rank's intervals as stage 3 cuts: an equal part of every parameter."""
    return [
        [
            Interval(slot.offset + part.start, part.length)
            for slot in layout.slots.values()
            if (part := even_split(slot.numel, rank, ranks)).length
        ]
        for rank in range(ranks)
    ]


def of_the_vector(ranks):
    """As stages 1 and 2 cut: one interval a rank, without regard to parameters."""
    return [[even_split(LAYOUT.numel, rank, ranks)] for rank in range(ranks)]


def at_random(ranks):
    generator = torch.Generator().manual_seed(ranks)
    cuts = [0, *sorted(torch.randint(LAYOUT.numel, (4 * ranks,), generator=generator).tolist()), LAYOUT.numel]
    owned = [[] for _ in range(ranks)]
    for start, end in itertools.pairwise(cuts):
        owned[int(torch.randint(ranks, (), generator=generator))].append(Interval(start, end - start))
    return owned


def pieces_of(intervals_by_rank, row):
    """Pieces of what the ranks send one behind the other, in rows of `row` numbers or, where 0, as long as they are."""
    start = 0
    for number, intervals in enumerate(intervals_by_rank):
        start = number * row or start
        for interval in intervals:
            yield Piece(start, interval.start, interval.length)
            start += interval.length


@pytest.mark.parametrize("cut", [of_parameters, of_the_vector, at_random])
@pytest.mark.parametrize("ranks", [1, 2, 3, 8, 64])
@pytest.mark.parametrize("padded", [True, False])
def test_what_arrives_in_pieces_is_put_in_order(cut, ranks, padded):
    owned = cut(ranks)
    row = max(sum(interval.length for interval in intervals) for intervals in owned) if padded else 0
    pieces = list(pieces_of(owned, row))
    received = torch.rand(ranks * row if padded else LAYOUT.numel)
    expected, whole = torch.full((LAYOUT.numel,), -1.0), torch.full((LAYOUT.numel,), -1.0)
    for piece in pieces:
        expected[piece.target : piece.target + piece.length] = received[piece.source : piece.source + piece.length]
    runs = runs_of(reversed(pieces))
    torch._foreach_copy_(target_views(whole, runs), source_views(received, runs))
    assert torch.equal(whole, expected) and expected.min() >= 0
    assert sum(run.count * run.first.length for run in runs) == LAYOUT.numel


@pytest.mark.parametrize("ranks", [2, 8, 64, 1_000])
def test_copies_of_equal_parts_do_not_grow_with_the_ranks(ranks):
    owned = of_parameters(ranks)
    row = max(sum(interval.length for interval in intervals) for intervals in owned)
    assert len(runs_of(pieces_of(owned, row))) <= 3 * len(SHAPES)


@pytest.mark.parametrize(("ranks", "pieces", "copies"), [(8, 1_592, 199), (1_000, 170_231, 334)])
def test_copies_of_bert_base_part_by_part(ranks, pieces, copies):
    with torch.device("meta"):
        bert = BertModel(BertConfig())
    found = [0, 0]
    for part in (bert.embeddings, *bert.encoder.layer, bert.pooler):
        owned = of_parameters(ranks, FlatLayout.of(part))
        of_part = list(pieces_of(owned, max(sum(interval.length for interval in own) for own in owned)))
        found = [found[0] + len(of_part), found[1] + len(runs_of(of_part))]
    assert found == [pieces, copies]


def test_views_lie_in_the_tensors_that_they_are_of():
    values = torch.arange(20)[3:]
    runs = runs_of([Piece(0, 4, 2), Piece(5, 6, 2), Piece(10, 8, 2), Piece(15, 12, 1)])
    assert [view.tolist() for view in source_views(values, runs)] == [[[3, 4], [8, 9], [13, 14]], [18]]
    assert [view.tolist() for view in target_views(values, runs)] == [[[7, 8], [9, 10], [11, 12]], [15]]
