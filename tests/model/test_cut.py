"""Loss and gradient of a global batch do not depend on how it is cut into micro-batches."""

import pytest
import torch

from spe_dist.data.batches.packed import PackedBatch
from spe_dist.model.loading import load_encoder
from spe_dist.model.start.build import build_key_encoder, build_pretraining_model
from spe_dist.pretraining.objectives import contrastive, contrastive_span_pair, span_permutation, token_boundary
from spe_dist.training.terms import total

WEIGHTS = {"tbo": 0.5, "spo": 1.0, "cspo": 0.3}


def take_sentences(batch: PackedBatch, sentences: range) -> PackedBatch:
    """The views and targets of some sentences, cut out sequence by sequence."""
    chosen = [*sentences, *(batch.n_sentences + i for i in sentences)]
    cu, borders = batch.cu_seqlens_Q1.tolist(), batch.span_borders_S1.tolist()
    new_cu, new_borders = [0], [0]
    tokens, words = [], []
    for q in chosen:
        tokens += range(cu[q], cu[q + 1])
        words += range(borders[5 * q], borders[5 * q + 5])
        new_cu.append(len(tokens))
        new_borders += [new_borders[-1] + borders[s + 1] - borders[5 * q] for s in range(5 * q, 5 * q + 5)]
    new_token = {token: i for i, token in enumerate(tokens)}
    new_span = {5 * q + f: 5 * i + f for i, q in enumerate(chosen) for f in range(5)}
    targets = [m for m, token in enumerate(batch.tbo_first_piece_M.tolist()) if token in new_token]
    permuted = [p for p, span in enumerate(batch.spo_span_P.tolist()) if span in new_span]
    return PackedBatch(
        sentence_ids_B=batch.sentence_ids_B[list(sentences)],
        text_ids_B=batch.text_ids_B[list(sentences)],
        piece_ids_T=batch.piece_ids_T[tokens],
        positions_T=batch.positions_T[tokens],
        cu_seqlens_Q1=torch.tensor(new_cu, dtype=torch.int32),
        first_piece_W=torch.tensor([new_token[t] for t in batch.first_piece_W[words].tolist()]),
        span_borders_S1=torch.tensor(new_borders),
        tbo_first_piece_M=torch.tensor([new_token[t] for t in batch.tbo_first_piece_M[targets].tolist()]),
        tbo_offset_M=batch.tbo_offset_M[targets],
        tbo_label_M=batch.tbo_label_M[targets],
        spo_span_P=torch.tensor([new_span[s] for s in batch.spo_span_P[permuted].tolist()]),
        spo_label_P=batch.spo_label_P[permuted],
        max_seqlen=batch.max_seqlen,
        view_tokens=len(tokens),
        view_words=len(words),
    )


def loss_and_gradient(model, keys, batches, queue, ranks, accumulation):
    """What `ranks` ranks with `accumulation` micro-batches each end up with: the engine's mean of their gradients."""
    queue_keys, queue_ids = queue
    counts = {
        "tbo": sum(batch.tbo_label_M.shape[0] for batch in batches),
        "spo": sum(batch.spo_label_P.shape[0] for batch in batches),
        "cspo": sum(batch.n_sentences for batch in batches),
    }
    assert len(batches) == ranks * accumulation
    model.zero_grad()
    loss = 0.0
    for batch in batches:
        outputs = model(batch)
        pair_keys, context_keys = keys.keys(batch)
        directions = [
            contrastive(query, key, queue_keys, 20, batch.sentence_ids_B, queue_ids, 0.2, True)
            for query, key in ((outputs.pair_queries_BC, context_keys), (outputs.context_queries_BC, pair_keys))
        ]
        terms = {
            "tbo": token_boundary(outputs.tbo_logits_MV, batch.tbo_label_M),
            "spo": span_permutation(outputs.spo_logits_PO, batch.spo_label_P),
            "cspo": contrastive_span_pair(*directions),
        }
        part = (outputs.anchor + total(terms, WEIGHTS, counts, ranks, accumulation)) / (ranks * accumulation)
        part.backward()
        loss += part.item()
    return loss, torch.cat([parameter.grad.flatten() for parameter in model.parameters()])


@pytest.mark.parametrize(("ranks", "accumulation"), [(1, 4), (2, 2), (4, 1)])
def test_one_batch_and_four_parts_give_the_same_loss_and_gradient(small_config, make_batch, ranks, accumulation):
    config = small_config(normalize=True)
    model = build_pretraining_model(config, load_encoder(None, config.model, 120, seed=0).encoder)
    keys = build_key_encoder(model, config)
    queue = torch.nn.functional.normalize(torch.randn(30, 24, generator=torch.Generator().manual_seed(0)), dim=1)
    whole = make_batch(8, seed=2)
    parts = [take_sentences(whole, range(first, first + 2)) for first in range(0, 8, 2)]
    negatives = (queue, torch.arange(30) + 195)  # some of the batch's own sentences among them
    plain_loss, plain_gradient = loss_and_gradient(model, keys, [whole], negatives, 1, 1)
    loss, gradient = loss_and_gradient(model, keys, parts, negatives, ranks, accumulation)
    assert loss == pytest.approx(plain_loss, rel=1e-6)
    assert (gradient - plain_gradient).norm() <= 1e-5 * plain_gradient.norm()
