"""The formula of a step's products against what torch counts of the real step."""

import numpy as np
import pytest
import torch
from small_steps import VOCABULARY, build_step, small_config, start
from torch.utils.flop_counter import FlopCounterMode

from spe_dist.benchmark.pretraining.contenders import fill_queues
from spe_dist.benchmark.pretraining.flops import step_flops
from spe_dist.data.batches.corruption import SentenceBatch, corrupt
from spe_dist.data.batches.packing import SpecialPieces, pack

WORDS = 30


def product_flops(_sum, left, right, **_):
    """Of a product that is added in place, from the shapes; torch does not count it by itself."""
    return 2 * left[0] * left[1] * right[1]


IN_PLACE = {torch.ops.aten.addmm_: product_flops}


def equal_sentences(config, n):
    """Sentences of equal length, whose words have one piece each but for one of three: nothing is padded or unread."""
    pieces = WORDS + 2
    first = np.delete(np.arange(pieces), [4, 5])
    sentences = SentenceBatch(
        piece_ids_T=np.random.default_rng(0).integers(5, VOCABULARY, n * pieces),
        piece_borders_N1=np.arange(n + 1) * pieces,
        first_piece_W=(np.arange(n)[:, None] * pieces + first).ravel(),
        word_borders_N1=np.arange(n + 1) * WORDS,
    )
    corrupted = corrupt(sentences, np.arange(n), 0, 0, config.corruption)
    return pack(corrupted, SpecialPieces(1, 2, 3), config.corruption.view_masks)


def counted_and_calculated(given):
    config = small_config(**given)
    step = build_step(config, start(), stage=1, accumulation=1)
    if step.moco is not None:
        fill_queues(step.moco, config)
    batch = equal_sentences(config, 8)
    with FlopCounterMode(display=False, custom_mapping=IN_PLACE) as counter:
        step(0, 1e-3, [batch])
    return counter.get_total_flops(), step_flops(config, VOCABULARY, batch, config.moco.queue_keys)


@pytest.mark.distributed
@pytest.mark.parametrize(
    "given",
    [
        {"queue_keys": 2000},
        {"permutations": 3},
        {"cspo": False},
        {"tbo": False, "contrastive_head": False, "cls_source": "pooler"},
        {"spo": False, "layers": 4},
    ],
    ids=str,
)
def test_the_formula_is_what_torch_counts(run_ranks, given):
    # With dropout, attention is made of products that torch counts, that of the keys too.
    given = {"view_masks": "each", "dropout": 0.1, "key_dropout": True, **given}
    [(counted, calculated)] = run_ranks(counted_and_calculated, 1, given)
    assert counted == pytest.approx(calculated, rel=0.01)


def test_what_nobody_reads_is_not_counted():
    config = small_config(view_masks="each", layers=1)
    batch = equal_sentences(config, 4)
    fewer = step_flops(config, VOCABULARY, batch, 10)
    inner, hidden = config.model.intermediate_size, config.model.hidden_size
    more_layers = small_config(view_masks="each", layers=2)
    whole_layer = step_flops(more_layers, VOCABULARY, batch, 10) - fewer
    # A further layer is one in which every token is needed; query with its backward and keys make four.
    tokens, lengths = batch.n_tokens, batch.cu_seqlens_Q1.diff().double()
    assert whole_layer == pytest.approx(
        4 * (2 * tokens * (4 * hidden**2 + 2 * hidden * inner) + 4 * hidden * float((lengths * lengths).sum()))
    )
    assert torch.all(lengths == WORDS + 4)
