"""Rates by layer, and which sentences are trained when."""

import itertools
import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from spe_dist.config.finetuning import OptimizerConfig
from spe_dist.finetuning.learning_rates import depth_of, peak_rate, rate_groups, uncorrected_factor
from spe_dist.finetuning.sampling import (
    choose_share,
    draw_gold,
    draw_spans,
    epoch_batches,
    gold_probability,
    part_of_rank,
)

SETTINGS = OptimizerConfig(learning_rate=1.0, head_learning_rate=7.0, layer_decay=0.5, weight_decay=0.01)


def test_rates_fall_from_layer_to_layer_and_heads_have_their_own(joint):
    model = joint.build_model()
    expected = {
        "spe.encoder.encoder.layer.1.output.dense.weight": 1.0,
        "spe.encoder.encoder.layer.0.attention.self.query.bias": 0.5,
        "spe.encoder.embeddings.LayerNorm.weight": 0.25,
        "spe.span_encoder.mlp.linear.weight": 7.0,
        "context_encoder.mlp.linear.weight": 7.0,
        "detection_head.weight": 7.0,
    }
    names = dict(model.named_parameters())
    for name, rate in expected.items():
        assert name in names
        assert peak_rate(depth_of(name, 2), SETTINGS) == rate
    assert depth_of("spe.encoder.pooler.dense.weight", 2) == 0


def test_span_and_pair_encoder_may_have_a_rate_of_their_own(joint):
    settings = replace(SETTINGS, span_learning_rate=3.0)
    for name, _ in joint.build_model().named_parameters():
        rate = peak_rate(depth_of(name, 2), settings)
        of_spans = name.startswith(("spe.span_encoder.", "spe.pair_encoder.", "context_encoder."))
        assert (rate == 3.0) == of_spans and (rate == 7.0) == ("head" in name), name


def test_each_parameter_is_in_one_group_and_vectors_do_not_decay(joint):
    model = joint.build_model()
    rates = rate_groups(model, 2, SETTINGS)
    grouped = [id(parameter) for group in rates.groups for parameter in group["params"]]
    assert sorted(grouped) == sorted(id(parameter) for parameter in model.parameters())
    for group in rates.groups:
        decays = {parameter.ndim >= 2 for parameter in group["params"]}
        assert decays == {group["weight_decay"] == 0.01}
    assert sorted(set(rates.peaks)) == [0.25, 0.5, 1.0, 7.0]
    assert rates.rates(0.1) == pytest.approx([0.1 * peak for peak in rates.peaks])


def test_groups_are_the_same_whatever_the_rates(joint):
    model = joint.build_model()
    alike = OptimizerConfig(learning_rate=1.0, head_learning_rate=1.0, layer_decay=1.0)
    different, same = (rate_groups(model, 2, settings).groups for settings in (SETTINGS, alike))
    assert len(different) == 2 * 5
    for one, other in zip(different, same, strict=True):
        assert [id(parameter) for parameter in one["params"]] == [id(parameter) for parameter in other["params"]]


def test_steps_without_bias_correction_are_those_of_plain_moments():
    settings = OptimizerConfig(adam_bias_correction=False)
    generator = torch.Generator().manual_seed(3)
    parameter = torch.nn.Parameter(torch.zeros(5, dtype=torch.float64))
    plain, mean, square = torch.zeros(5, dtype=torch.float64), 0.0, 0.0
    optimizer = torch.optim.AdamW([parameter], lr=1.0, eps=0.0, weight_decay=0.0)
    for applied_steps in range(30):
        gradient = torch.randn(5, dtype=torch.float64, generator=generator)
        parameter.grad = gradient
        optimizer.param_groups[0]["lr"] = 0.1 * uncorrected_factor(applied_steps, settings)
        optimizer.step()
        mean, square = 0.9 * mean + 0.1 * gradient, 0.999 * square + 0.001 * gradient**2
        plain -= 0.1 * mean / square**0.5
    torch.testing.assert_close(parameter.detach(), plain)
    assert uncorrected_factor(144, settings) == pytest.approx(2.72, abs=0.01)
    assert uncorrected_factor(0, OptimizerConfig()) == 1.0


def test_gold_entities_are_certain_for_five_epochs_and_then_fade():
    probabilities = [gold_probability(epoch, 5, 3.0) for epoch in range(40)]
    assert probabilities[:5] == [1.0] * 5
    assert probabilities[5] == pytest.approx(3 / 4)
    assert probabilities[8] == pytest.approx(3 / (3 + math.e))
    assert all(later < earlier for earlier, later in itertools.pairwise(probabilities[4:]))
    assert gold_probability(10**6, 5, 3.0) < 1e-100


def test_a_smaller_share_lies_inside_a_larger_one():
    shares = [set(choose_share(200, share, seed=4).tolist()) for share in (0.1, 0.2, 0.5, 1.0)]
    assert [len(share) for share in shares] == [20, 40, 100, 200]
    assert shares[0] < shares[1] < shares[2] < shares[3]
    assert shares[1] != set(choose_share(200, 0.2, seed=5).tolist())


def test_an_epoch_reads_each_sentence_once_in_batches_of_like_size_and_another_order_each_time():
    batches = epoch_batches(70, 32, seed=1, epoch=3)
    assert [len(batch) for batch in batches] == [24, 23, 23]
    assert sorted(np.concatenate(batches).tolist()) == list(range(70))
    assert np.concatenate(batches).tolist() != np.concatenate(epoch_batches(70, 32, 1, 4)).tolist()
    parts = [part_of_rank(batches[0], rank, 4) for rank in range(4)]
    assert np.concatenate(parts).tolist() == batches[0].tolist()
    assert [len(part) for part in parts] == [6, 6, 6, 6]


def test_the_draw_of_a_sentence_depends_on_its_number_and_epoch_alone():
    everyone = draw_gold(np.arange(2_000), 0.75, seed=2, epoch=6)
    assert abs(everyone.mean() - 0.75) < 0.04
    assert draw_gold(np.array([7, 1_000]), 0.75, 2, 6).tolist() == everyone[[7, 1_000]].tolist()
    assert (draw_gold(np.arange(2_000), 0.75, 2, 7) != everyone).any()
    assert draw_gold(np.arange(9), 1.0, 2, 0).all() and not draw_gold(np.arange(9), 0.0, 2, 0).any()


def test_negative_spans_are_all_of_a_short_sentence_and_draws_of_a_long_one():
    words_B, numbers_B, widest = np.array([3, 0, 40, 1]), np.array([7, 2, 5, 11]), 4

    def drawn(epoch=0, words_B=words_B, numbers_B=numbers_B):
        start_X, end_X = draw_spans(words_B, numbers_B, 30, widest, 1, epoch)
        borders = np.concatenate([[0], np.cumsum(words_B)])
        of_X = np.searchsorted(borders, start_X, side="right") - 1
        assert (end_X <= borders[of_X + 1]).all() and (end_X > start_X).all()
        return [
            [(s - low, e - low) for s, e, of in zip(start_X, end_X, of_X, strict=True) if of == number]
            for number, low in enumerate(borders[:-1])
        ]

    short, none, long, single = drawn()
    assert sorted(short) == [(a, b) for a in range(3) for b in range(a + 1, 4)]
    assert none == [] and single == [(0, 1)]
    assert len(long) == 30 and {b - a for a, b in long} == {1, 2, 3, 4}
    assert drawn()[2] == long != drawn(epoch=1)[2]
    assert drawn(words_B=words_B[2:3], numbers_B=numbers_B[2:3])[0] == long
    counts = Counter(span for epoch in range(400) for span in drawn(epoch, np.array([12]), np.array([3]))[0])
    assert len(counts) == 12 + 11 + 10 + 9 and max(counts.values()) < 1.5 * min(counts.values())
