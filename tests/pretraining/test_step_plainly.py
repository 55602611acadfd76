"""One training step in one process, without DeepSpeed: absolute losses against METHOD's formulas written out.

The steps on real ranks (`test_step`) are compared with each other, where an error that all of them share goes unseen.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from small_steps import VOCABULARY, make_batch, small_config

from spe_dist.distributed.context import RankContext
from spe_dist.moco import KeyQueue, MomentumContrast, MomentumKeyEncoder, PlainWeights
from spe_dist.model.loading import load_encoder
from spe_dist.model.start.build import build_key_encoder, build_pretraining_model
from spe_dist.pretraining.step import TrainingStep

RATE, QUEUE_KEYS = 0.1, 20
WEIGHTS = {"tbo_weight": 0.7, "spo_weight": 1.9, "cspo_weight": 0.3, "mlm_weight": 0.6}
FILLS = {"pair_queue": 5, "context_queue": 13}  # of different keys and different lengths: no exchange stays unseen
CONTEXT = RankContext(rank=0, ranks=1, local_rank=0, device=torch.device("cpu"), control=None)


class PlainEngine:
    """An ordinary module with the engine's calls: plain gradient descent, unless a step is to be skipped."""

    zero_stage = 0

    def __init__(self, module):
        self.module = module
        self.losses: list[float] = []
        self.rate = 0.0
        self.skips = False

    def __call__(self, batch):
        return self.module(batch)

    def backward(self, loss):
        self.losses.append(loss.item())
        loss.backward()

    def step(self):
        pass

    def set_learning_rate(self, rate):
        self.rate = rate

    def was_step_applied(self):
        if not self.skips:
            with torch.no_grad():
                for parameter in self.module.parameters():
                    if parameter.grad is not None:
                        parameter -= self.rate * parameter.grad
                    parameter.grad = None
        return not self.skips


def build(**given):
    """A step whose key encoder differs from the query and whose queues hold different numbers of keys."""
    config = small_config(permutations=1, queue_keys=QUEUE_KEYS, **WEIGHTS, **given)
    model = build_pretraining_model(config, load_encoder(None, config.model, VOCABULARY, 0).encoder)
    key_module = build_key_encoder(model, config)
    source = PlainWeights(model.spe)
    keys = MomentumKeyEncoder(key_module, source, CONTEXT, config.moco.momentum, "sharded", model.spe)
    size = config.model.contrastive_size
    moco = MomentumContrast(keys, KeyQueue(QUEUE_KEYS, size), KeyQueue(QUEUE_KEYS, size))
    moco.start()
    generator = torch.Generator().manual_seed(2)
    for name, fill in FILLS.items():
        entering = torch.nn.functional.normalize(torch.randn(fill, size, generator=generator), dim=1)
        ids = make_batch(config, fill, fill).text_ids_B  # some are those of sentences of the batch
        getattr(moco, name).enqueue(entering, ids)
    with torch.no_grad():  # the query has moved on since the average began as its copy
        for parameter in model.spe.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    return TrainingStep(PlainEngine(model), moco, config, CONTEXT)


def plain_infonce(query, positive, queue, sentence, config):
    """-log of the positive's share among itself and the filled slots of other sentences."""
    query, positive = query.double(), positive.double()
    if config.moco.normalize:
        query, positive = query / query.norm(), positive / positive.norm()
    others = [slot for slot in range(int(queue.fill)) if int(queue.ids_K[slot]) != int(sentence)]
    negatives = [queue.keys_KC[slot].double() @ query for slot in others]
    scores = torch.stack([positive @ query, *negatives]) / config.moco.temperature
    return torch.logsumexp(scores, 0) - scores[0]


@torch.no_grad()
def plain_losses(step, batch):
    """Sums of the three losses over a micro-batch (METHOD, CSPO and Total loss), in float64, before any update."""
    outputs = step.engine.module(batch)
    pair_keys, context_keys = step.moco.key_module.keys(batch)
    moco, config = step.moco, step.config
    cspo = sum(
        plain_infonce(pair_query, context_key, moco.context_queue, sentence, config)
        + plain_infonce(context_query, pair_key, moco.pair_queue, sentence, config)
        for pair_query, context_query, pair_key, context_key, sentence in zip(
            outputs.pair_queries_BC,
            outputs.context_queries_BC,
            pair_keys,
            context_keys,
            batch.text_ids_B,
            strict=True,
        )
    )
    classified = {"tbo": (outputs.tbo_logits_MV, batch.tbo_label_M), "spo": (outputs.spo_logits_PO, batch.spo_label_P)}
    losses = {
        name: sum(torch.logsumexp(row, 0) - row[label] for row, label in zip(logits.double(), labels, strict=True))
        for name, (logits, labels) in classified.items()
    }
    return {name: float(value) for name, value in (losses | {"cspo": cspo / 2}).items()}


@pytest.mark.parametrize("normalize", [True, False])
def test_losses_of_a_step_are_those_of_the_method_written_out(normalize):
    step = build(normalize=normalize)
    batches = [make_batch(step.config, 8, 5), make_batch(step.config, 13, 3)]
    expected = [plain_losses(step, batch) for batch in batches]
    outcome = step(0, 0.0, batches)
    for name in ("tbo", "spo", "cspo"):
        assert outcome.sums[f"{name}/loss"].item() == pytest.approx(sum(losses[name] for losses in expected), rel=1e-5)
    counts = {
        "tbo": sum(len(batch.tbo_label_M) for batch in batches),
        "spo": sum(len(batch.spo_label_P) for batch in batches),
        "cspo": 8,
    }
    assert outcome.counts == counts and len(set(counts.values())) == 3
    for losses, backpropagated in zip(expected, step.engine.losses, strict=True):
        total = sum(WEIGHTS[f"{name}_weight"] * losses[name] / counts[name] for name in counts)
        assert backpropagated == pytest.approx(len(batches) * total, rel=1e-5)


def state_of(moco):
    tensors = {fragment.name: fragment.tensor for fragment in moco.fragments()}  # whole ones, as there is one rank
    return {name: tensor.clone() for name, tensor in (tensors | moco.key_encoder.named_tensors()).items()}


def changed(before, after):
    return {name for name in before if not torch.equal(before[name], after[name])}


def test_a_skipped_step_moves_neither_the_average_nor_the_queues():
    step = build()
    step.engine.skips = True
    before = state_of(step.moco)
    outcome = step(0, RATE, [make_batch(step.config, 40, 4)])
    assert not outcome.applied and changed(before, state_of(step.moco)) == set()
    step.engine.skips = False
    batch = make_batch(step.config, 44, 4)
    assert step(1, RATE, [batch]).applied
    moved = changed(before, state_of(step.moco))
    for queue, fill in FILLS.items():
        assert {f"{queue}/{name}" for name in ("keys_KC", "ids_K", "cursor", "fill")} <= moved
        assert getattr(step.moco, queue).ids_K[fill : fill + 4].tolist() == batch.text_ids_B.tolist()
    assert {name for name in before if name.startswith("key_average/")} & moved


def test_keys_of_a_step_enter_the_queue_of_their_view_after_its_losses():
    step = build()
    batches = [make_batch(step.config, 40, 3), make_batch(step.config, 43, 2)]
    keys = [step.moco.key_module.keys(batch) for batch in batches]
    step(0, RATE, batches)
    for queue, of_view in zip(FILLS, zip(*keys, strict=True), strict=True):
        entered = getattr(step.moco, queue).keys_KC[FILLS[queue] : FILLS[queue] + 5]
        torch.testing.assert_close(entered, torch.cat(of_view))


def test_each_setting_of_an_objective_reaches_it():
    """With values that all differ: none is read in another's place."""
    step = build(temperature=0.37, momentum=0.83)
    assert step.weights == {"tbo": 0.7, "spo": 1.9, "cspo": 0.3, "mlm": 0.6}
    assert step.moco.key_encoder.momentum == 0.83
    batch = make_batch(step.config, 8, 5)
    expected = plain_losses(step, batch)
    assert step(0, 0.0, [batch]).sums["cspo/loss"].item() == pytest.approx(expected["cspo"], rel=1e-5)


@pytest.mark.parametrize("dropout_seed", ["rank", "slot"])
def test_dropout_of_a_step_depends_on_its_number_and_rank_alone(dropout_seed):
    step = build(dropout=0.5, dropout_seed=dropout_seed)
    other_rank = TrainingStep(step.engine, None, step.config, replace(CONTEXT, rank=1))
    step.moco = None
    step.engine.module.train()
    batch = make_batch(step.config, 8, 5)

    def loss(step, number):
        return step(number, 0.0, [batch]).sums["tbo/loss"].item()

    assert loss(step, 3) == loss(step, 3)
    assert len({loss(step, 3), loss(step, 4), loss(other_rank, 3)}) == 3


@pytest.mark.parametrize("micro_batches", [1, 2, 3])
def test_a_stop_drops_a_step_unless_its_last_micro_batch_is_done(micro_batches):
    step = build()
    asked = []
    step.stop_agreed = lambda: asked.append(len(step.engine.losses)) or len(asked) == 2
    outcome = step(0, 0.0, [make_batch(step.config, 40 + i, 1) for i in range(micro_batches)])
    assert (outcome is None) == (micro_batches == 3)
    assert asked == [1, 2][:micro_batches]
    entered = {name: int(getattr(step.moco, name).fill) - fill for name, fill in FILLS.items()}
    assert set(entered.values()) == {0 if outcome is None else micro_batches}


def test_keys_of_an_equal_sentence_with_another_id_are_no_negatives():
    batch = make_batch(build().config, 8, 5)
    other = replace(batch, sentence_ids_B=batch.sentence_ids_B + 1_000)
    lost = {}
    for compared in ("texts", "sentences"):
        step = build()
        step.moco.compared = compared
        for queue in (step.moco.pair_queue, step.moco.context_queue):
            queue.enqueue(torch.zeros(5, queue.key_size), batch.text_ids_B)
        lost[compared] = step(0, 0.0, [other]).sums["cspo/loss"].item()
    assert lost["texts"] < lost["sentences"]
