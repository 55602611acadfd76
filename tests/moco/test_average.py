from itertools import pairwise

import pytest
import torch

from spe_dist.moco import FlatLayout, Interval, KeyAverage, PlainWeights
from spe_dist.moco.average import (
    CHUNK_NUMEL_COMPILED,
    CHUNK_NUMEL_CPU,
    _step_to_compile,
    compensated_step,
    compiled_step,
)
from spe_dist.moco.layout import merged


def run(sources, momentum, pieces=1):
    """Average after following all sources but the first, and the same in float64."""
    average = KeyAverage(sources[0], momentum)
    reference = sources[0].double()
    for source in sources[1:]:
        average.update(list(source.chunk(pieces)))
        reference = momentum * reference + (1.0 - momentum) * source.double()
    return average, reference


def drifting_weights(start, change, dtype, steps=1_000):
    """Masters that change by `change` a step, seen in `dtype`."""
    generator = torch.Generator().manual_seed(0)
    master = start.double()
    for _ in range(steps + 1):
        yield master.to(dtype)
        master = master + change * torch.rand(master.shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize(
    ("momentum", "dtype"),
    [(0.999, dtype) for dtype in (torch.float32, torch.bfloat16, torch.float16)]
    + [(momentum, torch.float32) for momentum in (0.0, 0.9, 0.9999, 1.0)],
    ids=str,
)
def test_thousand_steps_match_float64_to_1e_6(momentum, dtype):
    start = torch.cat([torch.ones(40), torch.linspace(-2, 2, 41), 0.02 * torch.randn(40)])
    for change in (1e-6, 1e-3):
        average, reference = run(list(drifting_weights(start, change, dtype)), momentum, pieces=3)
        assert (average.average_P.double() - reference).abs().max() < 1e-6


def test_plain_float32_would_miss_the_bound_that_compensation_keeps():
    sources = list(drifting_weights(torch.ones(1_000), 1e-6, torch.float32))
    plain = sources[0].clone()
    for source in sources[1:]:
        plain.mul_(0.999).add_(source, alpha=0.001)
    average, reference = run(sources, 0.999)
    assert (plain.double() - reference).abs().max() > 5e-6
    assert (average.average_P.double() - reference).abs().max() < 1.2e-7


def test_the_average_does_not_depend_on_how_the_vector_is_cut():
    numel = 2 * CHUNK_NUMEL_CPU + 77
    sources = [torch.randn(numel, generator=torch.Generator().manual_seed(i)) for i in range(4)]
    whole = KeyAverage(sources[0], 0.999)
    cuts = [0, 5, 13, CHUNK_NUMEL_CPU + 3, CHUNK_NUMEL_CPU + 4, numel]
    parts = [KeyAverage(sources[0][a:b], 0.999) for a, b in pairwise(cuts)]
    for source in sources[1:]:
        whole.update([source[a:b] for a, b in pairwise(cuts)])
        for part, (a, b) in zip(parts, pairwise(cuts), strict=True):
            part.update([source[a:b]])
    assert torch.equal(whole.average_P, torch.cat([p.average_P for p in parts]))
    assert torch.equal(whole.compensation_P, torch.cat([p.compensation_P for p in parts]))


@pytest.fixture
def compiled():
    """Compiles for one thread and forgets what was compiled."""
    compiled_step.cache_clear()
    yield
    compiled_step.cache_clear()
    torch._dynamo.reset()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_the_compiled_kernel_gives_the_bits_of_single_operations(compiled, dtype, monkeypatch):
    """Pieces of several lengths, joined and alone, at borders that are no multiple of a vector."""
    monkeypatch.setitem(CHUNK_NUMEL_COMPILED, "cpu", 1_000)
    sources = [torch.randn(4_321, generator=torch.Generator().manual_seed(i)).to(dtype) for i in range(4)]
    fast, plain = (KeyAverage(sources[0], 0.999, compiled) for compiled in (True, False))
    assert fast._step is not compensated_step
    for source in sources[1:]:
        pieces = [source[:7].clone(), source[7:1_500], source[1_500:3_003].clone(), source[3_003:]]
        fast.update(pieces)
        plain.update(pieces)
        assert torch.equal(fast.average_P, plain.average_P)
        assert torch.equal(fast.compensation_P, plain.compensation_P) and plain.compensation_P.any()


def test_the_compiled_kernel_is_one():
    from torch._inductor.utils import run_and_get_code

    step = torch.compile(_step_to_compile, dynamic=True, options={"emulate_precision_casts": True})
    _, code = run_and_get_code(step, *torch.randn(3, 5_000), 0.001)
    assert "\n".join(code).count('extern "C"') == 1
    torch._dynamo.reset()


@pytest.mark.parametrize("fault", ["other bits", "no compiler"])
def test_a_kernel_that_cannot_be_compiled_or_gives_other_bits_is_not_used(compiled, fault, monkeypatch):
    def compiles(function, **given):
        def step(average_N, compensation_N, source_N, rate):
            if fault == "no compiler":
                raise RuntimeError("no C compiler")
            average_N.lerp_(source_N, rate)

        return step

    monkeypatch.setattr(torch, "compile", compiles)
    with pytest.warns(UserWarning, match="no C compiler" if fault == "no compiler" else "its bits differ"):
        average = KeyAverage(torch.ones(5), 0.5, compiled=True)
    average.update([torch.zeros(5)])
    assert torch.equal(average.average_P, torch.full((5,), 0.5))


def test_views_one_behind_the_other_become_one_piece():
    flat, other = torch.arange(20.0), torch.arange(3.0)
    pieces = [flat[2:5], flat[5:6], flat[6:11], flat[12:15], other, flat[15:20].double(), flat[0:2], flat[2:4]]
    found = merged(pieces)
    assert [piece.numel() for piece in found] == [9, 3, 3, 5, 4]
    assert found[0].data_ptr() == flat[2:].data_ptr()
    assert torch.equal(torch.cat([p.float() for p in found]), torch.cat([p.float() for p in pieces]))
    assert merged([]) == []


def test_the_start_is_a_copy_and_not_a_view():
    source = torch.ones(4)
    average = KeyAverage(source, 0.9)
    source.zero_()
    assert torch.equal(average.average_P, torch.ones(4))


def test_flat_layout_follows_the_state_dict_and_counts_tied_parameters_once():
    module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Linear(2, 5))
    layout = FlatLayout.of(module)
    assert list(layout.slots) == list(module.state_dict())
    assert layout.numel == 6 + 2 + 10 + 5
    module.tied = module[0]
    assert FlatLayout.of(module).numel == layout.numel


def test_slices_cut_intervals_at_the_borders_of_parameters():
    layout = FlatLayout.of_shapes({"a": (2, 2), "empty": (0,), "b": (3,), "c": ()})
    slices = [(s.name, s.start, s.length, s.joined_offset) for s in layout.slices([Interval(6, 2), Interval(1, 4)])]
    assert slices == [("b", 2, 1, 0), ("c", 0, 1, 1), ("a", 1, 3, 2), ("b", 0, 1, 5)]


@pytest.mark.parametrize("ranks", [1, 2, 3, 5, 40])
def test_plain_weights_are_split_evenly_and_cover_everything_once(ranks):
    module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Linear(2, 5))
    sources = [PlainWeights(module, rank, ranks) for rank in range(ranks)]
    FlatLayout.of(module).check_cover([source.intervals for source in sources])
    joined = torch.cat([piece for source in sources for piece in source.pieces()])
    assert torch.equal(joined, torch.cat([p.detach().view(-1) for p in module.parameters()]))


def test_a_gap_or_overlap_between_ranks_is_named():
    layout = FlatLayout.of_shapes({"a": (4,), "b": (3,)})
    with pytest.raises(AssertionError, match="b: owned by no rank"):
        layout.check_cover([[Interval(0, 4)], [Interval(4, 2)]])
    with pytest.raises(AssertionError, match="a: owned"):
        layout.check_cover([[Interval(0, 4)], [Interval(3, 4)]])
