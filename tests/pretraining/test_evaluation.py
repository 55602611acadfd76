import math
import threading
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from thread_ranks import ThreadCollectives, run_threads

from spe_dist.config.pretraining import Config, CorruptionConfig, MocoConfig, ModelConfig, ObjectiveConfig, TrainConfig
from spe_dist.data.shards.blocks import Block
from spe_dist.model.loading import load_encoder
from spe_dist.model.start.build import build_key_encoder, build_pretraining_model
from spe_dist.pretraining.evaluation import HeldOutEvaluation, count_yardsticks, top1
from spe_dist.pretraining.held_out import HeldOutSentences, groups_of_equal_length

VOCABULARY, CLS, SEP, MASK = 60, 1, 2, 3


class MadeStore:
    """Held-out or training sentences made up in memory; words of 1 to 3 pieces out of ids 5..59."""

    first_sentence_id = 700

    def __init__(self, blocks=3, sentences=25, seed=0):
        rng = np.random.default_rng(seed)
        self.manifest = SimpleNamespace(
            cls_id=CLS, sep_id=SEP, mask_id=MASK, vocabulary_size=VOCABULARY, hash=lambda: f"made {seed}"
        )
        self.block_sentences = np.full(blocks, sentences)
        self.n_sentences = blocks * sentences
        self._blocks = [self._make(rng, sentences) for _ in range(blocks)]

    lookahead_sentences = 0

    def block(self, index):
        return self._blocks[index]

    def _make(self, rng, sentences):
        piece_ids, first_pieces, piece_offsets, word_offsets = [], [], [0], [0]
        for _ in range(sentences):
            start = len(piece_ids)
            for _ in range(rng.integers(4, 9)):
                first_pieces.append(len(piece_ids) - start)
                piece_ids += rng.integers(5, VOCABULARY, rng.integers(1, 4)).tolist()
            piece_offsets.append(len(piece_ids))
            word_offsets.append(len(first_pieces))
        arrays = (np.array(values) for values in (piece_ids, piece_offsets, first_pieces, word_offsets))
        return Block(0, *arrays)


def made_config(**corruption):
    return Config(
        model=ModelConfig(
            hidden_size=16, layers=1, attention_heads=2, intermediate_size=32, span_size=12, attention_size=8,
            position_size=4, cnn_channels=4, contrastive_size=10, tbo_offset_size=6,
        ),
        corruption=CorruptionConfig(**corruption),
        train=TrainConfig(evaluate_sentences=60, kernels="torch"),
    )  # fmt: skip


def made_model(config, seed=5):
    loaded = load_encoder(None, config.model, VOCABULARY, seed)
    model = build_pretraining_model(config, loaded.encoder).eval()
    key_module = build_key_encoder(model, config) if config.objectives.cspo else None
    return model, key_module


def evaluate(config, ranks=1, micro_batch=8, model=None):
    """Figures and number of forward calls of each rank."""
    model, key_module = model or made_model(config)

    def rank(collectives):
        calls = []

        def forward(batch):
            calls.append(batch)
            return model(batch)

        evaluation = HeldOutEvaluation(
            MadeStore(), config, collectives, torch.device("cpu"), micro_batch, {"heldout/tbo_count_model_nats": 1.0}
        )
        return evaluation(forward, key_module), len(calls)

    return run_threads(ranks, rank)


@pytest.mark.parametrize("view_masks", ["each", "one"])
def test_any_number_of_ranks_gives_the_same_figures_and_equal_forward_calls(view_masks):
    config = made_config(view_masks=view_masks)
    (expected, _), *_ = evaluate(config)
    for ranks, micro_batch in ((1, 60), (2, 8), (3, 8), (4, 17)):
        results = evaluate(config, ranks, micro_batch)
        assert len({calls for _, calls in results}) == 1
        for figures, _ in results:
            assert figures.keys() == expected.keys()
            for name, value in figures.items():
                assert value == pytest.approx(expected[name], abs=1e-5), name


def test_figures_are_those_of_all_held_out_sentences_at_once():
    config = made_config()
    model, key_module = made_model(config)
    (figures, _), *_ = evaluate(config, model=(model, key_module))
    batch = HeldOutSentences(MadeStore(), config.corruption, 60, config.train.seed).as_trained(60).batches[0]
    assert batch.sentence_ids_B.tolist() == list(range(700, 760))
    with torch.no_grad():
        outputs = model(batch)
        pair_keys, context_keys = key_module.keys(batch)
    tbo = torch.nn.functional.cross_entropy(outputs.tbo_logits_MV, batch.tbo_label_M)
    spo = torch.nn.functional.cross_entropy(outputs.spo_logits_PO, batch.spo_label_P)
    assert figures["heldout/tbo_nats"] == pytest.approx(float(tbo), abs=1e-5)
    assert figures["heldout/spo_nats"] == pytest.approx(float(spo), abs=1e-5)
    shares = torch.bincount(batch.spo_label_P).double() / len(batch.spo_label_P)
    assert figures["heldout/spo_entropy"] == pytest.approx(float(-(shares * shares.log()).sum()), abs=1e-9)
    pair = torch.nn.functional.normalize(outputs.pair_queries_BC, dim=1) @ context_keys.T
    context = torch.nn.functional.normalize(outputs.context_queries_BC, dim=1) @ pair_keys.T
    right = [(s.argmax(1) == torch.arange(60)).double().mean() for s in (pair, context)]
    assert figures["heldout/top1_random"] == pytest.approx(float(sum(right)) / 2)
    assert figures["heldout/top1_random_chance"] == pytest.approx(1 / 60)
    assert figures["heldout/tbo_count_model_nats"] == 1.0


def test_sentences_of_a_group_share_words_and_spans_but_not_their_pieces():
    held_out = HeldOutSentences(MadeStore(), CorruptionConfig(view_masks="one"), 60, seed=0)
    groups, size = held_out.groups_GE.shape
    assert groups >= 2 and len(set(held_out.groups_GE.ravel().tolist())) == groups * size
    (batch,) = held_out.one_layout_a_group(groups * size).batches
    words_in_spans = batch.span_borders_S1.diff().view(2, groups, size, 5)
    assert (words_in_spans == words_in_spans[:, :, :1]).all()
    assert torch.equal(batch.sentence_ids_B, torch.from_numpy(700 + held_out.groups_GE.ravel()))
    tokens = batch.cu_seqlens_Q1.diff().view(2, groups, size)
    assert not (tokens == tokens[:, :, :1]).all()


def test_the_control_shows_no_word_and_keeps_masks_and_targets():
    held_out = HeldOutSentences(MadeStore(), CorruptionConfig(), 60, seed=0)
    batch = held_out.as_trained(60).batches[0]
    blind = held_out.without_words(batch)
    special = torch.isin(batch.piece_ids_T, torch.tensor([CLS, SEP, MASK]))
    assert torch.equal(blind.piece_ids_T[special], batch.piece_ids_T[special])
    assert blind.piece_ids_T[~special].unique().tolist() == [held_out.frequent_piece]
    assert torch.equal(blind.tbo_label_M, batch.tbo_label_M)


def test_without_words_and_with_equal_layouts_the_oracle_of_equal_inputs_is_at_chance():
    config = made_config(view_masks="one")
    store = MadeStore()
    for block in store._blocks:  # words of one piece: then layouts tell all that a blind model sees
        block.piece_ids_T[:] = 9
        object.__setattr__(block, "piece_ids_T", block.piece_ids_T[: block.n_words])
        object.__setattr__(block, "piece_offsets_N1", block.word_offsets_N1)
        words_N = np.diff(block.word_offsets_N1)
        object.__setattr__(
            block, "first_pieces_W", np.arange(block.n_words) - np.repeat(block.word_offsets_N1[:-1], words_N)
        )
    model, key_module = made_model(config)
    collectives = ThreadCollectives(0, 1, {}, threading.Barrier(1))
    evaluation = HeldOutEvaluation(store, config, collectives, torch.device("cpu"), 16, {})
    figures = evaluation(model, key_module)
    chance = figures["heldout/top1_same_layout_chance"]
    assert figures["heldout/top1_same_layout"] <= 2 * chance
    assert figures["heldout/top1_same_layout"] == pytest.approx(figures["heldout/top1_same_layout_control"])
    assert "heldout/tbo_nats" not in figures, "there are no words of two pieces"


def test_ties_count_by_their_number():
    same = torch.ones(6, 4)
    groups = torch.arange(6).view(2, 3)
    assert top1([same] * 4, groups) == pytest.approx(1 / 3)
    assert top1([torch.eye(6)] * 4, groups) == 1.0
    one_direction_tied = [torch.eye(6), torch.zeros(6, 6), torch.eye(6), torch.eye(6)]
    assert top1(one_direction_tied, groups) == pytest.approx((1 / 3 + 1) / 2)
    assert top1([same + 1e-7 * torch.randn(same.shape)] * 4, groups) == pytest.approx(1 / 3)


def test_a_share_of_vectors_that_are_not_finite_is_not_a_number():
    for wrong in (float("nan"), float("inf")):
        queries = torch.eye(6)
        queries[4, 0] = wrong
        assert math.isnan(top1([queries, torch.eye(6), torch.eye(6), torch.eye(6)], torch.arange(6).view(2, 3)))


def test_the_layout_oracle_shares_its_guess_among_sentences_of_the_query_s_layout():
    held_out = HeldOutSentences(MadeStore(), CorruptionConfig(), 60, seed=0)
    layouts = [tuple(row) for row in held_out.layouts_N6.tolist()]
    expected = sum(1 / layouts.count(layout) for layout in layouts) / 60
    (figures, _), *_ = evaluate(made_config(view_masks="each"))
    assert figures["heldout/top1_random_layout_oracle"] == pytest.approx(expected)
    assert figures["heldout/top1_random_chance"] == pytest.approx(1 / 60)


@pytest.mark.parametrize("on", ["tbo", "spo", "cspo"])
def test_only_the_figures_of_objectives_that_are_on_are_given(on):
    config = replace(made_config(), objectives=ObjectiveConfig(**{name: name == on for name in ("tbo", "spo", "cspo")}))
    (figures, _), *_ = evaluate(config)
    kinds = {"tbo": "heldout/tbo_", "spo": "heldout/spo_", "cspo": "heldout/top1_"}
    for name, prefix in kinds.items():
        assert any(figure.startswith(prefix) for figure in figures) == (name == on)


def test_further_copies_of_sentences_serve_the_permutation_figures_only():
    config = replace(made_config(permutations=3), moco=MocoConfig(normalize=False))
    (figures, _), *_ = evaluate(config, 2)
    assert figures["heldout/spo_entropy"] > 0 and figures["heldout/sentences"] == 60
    one_copy = made_config(permutations=1)
    (single, _), *_ = evaluate(one_copy)
    assert figures["heldout/spo_spans"] == 3 * single["heldout/spo_spans"]
    assert figures["heldout/tbo_pieces"] > 0


@pytest.mark.parametrize(
    ("lengths", "size", "groups"), [([5] * 64 + [6] * 10, 32, 2), ([4, 5, 6, 6], 2, 1), ([4, 5], 2, 0)]
)
def test_groups_are_as_large_as_half_of_the_sentences_allow(lengths, size, groups):
    made = groups_of_equal_length(np.array(lengths))
    assert made.shape == (groups, size)
    assert all(len({lengths[i] for i in group}) == 1 for group in made)


def test_count_yardsticks_are_kept_in_the_run_folder_for_the_same_shards_only(tmp_path):
    config, held_out = made_config(), MadeStore()
    first = count_yardsticks(MadeStore(seed=1), held_out, config, tmp_path)
    assert first["heldout/tbo_count_model_nats"] > 0 and first["heldout/tbo_unigram_nats"] > 0

    class Unreadable(MadeStore):
        def block(self, index):
            raise AssertionError("counted again")

    assert count_yardsticks(Unreadable(seed=1), held_out, config, tmp_path) == first
    with pytest.raises(AssertionError, match="counted again"):
        count_yardsticks(Unreadable(seed=2), held_out, config, tmp_path)
    off = replace(config, objectives=ObjectiveConfig(tbo=False))
    assert count_yardsticks(MadeStore(), held_out, off) == {}


def test_no_held_out_sentences_give_no_figures():
    config = made_config()
    store = MadeStore(blocks=1, sentences=0)
    collectives = ThreadCollectives(0, 1, {}, threading.Barrier(1))
    evaluation = HeldOutEvaluation(store, config, collectives, torch.device("cpu"), 4, {})
    assert evaluation(lambda batch: pytest.fail("nothing to do"), None) == {}
