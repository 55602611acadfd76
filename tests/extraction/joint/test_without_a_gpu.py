"""Training and prediction of the joint model the way a GPU takes: same numbers as on a CPU, and few waits for it."""

import warnings
from collections import Counter
from dataclasses import fields

import pytest
import torch
from shadow import META, Shadow

from spe_dist.benchmark.launches import LaunchCounter
from spe_dist.benchmark.step_launches import CountedEngine
from spe_dist.distributed.context import RankContext
from spe_dist.extraction.joint.batch import collate
from spe_dist.extraction.joint.examples import ExampleMaker, make_examples
from spe_dist.extraction.predicting.stream import StreamSettings, predict_sentences
from spe_dist.finetuning.step import FinetuneStep

# A batch waits for the scores of tags, of types and of relations, each copied to the host once.
MOST_WAITS_OF_PREDICTION = 3
# A step of training waits for the scores of tags and of types, by which it chooses its candidates.
MOST_WAITS_OF_TRAINING = 2

BATCHES = {
    "several lengths": ([9, 1, 14, 0, 5, 22], 64),
    "long sentences in windows": ([9, 60, 1, 33, 45], 20),
    "no words at all": ([0, 0], 64),
}


@pytest.fixture(params=BATCHES.values(), ids=BATCHES.keys())
def examples(joint, request):
    lengths, max_pieces = request.param
    return make_examples(joint.random_sentences(4, lengths), joint.tokenizer(), joint.LABELS, max_pieces)


def assert_same_prediction(found, expected):
    for field in fields(expected):
        values = getattr(expected, field.name)
        if isinstance(values, torch.Tensor):
            torch.testing.assert_close(getattr(found, field.name), values, rtol=1e-5, atol=1e-6)
        else:
            assert getattr(found, field.name) == values


def test_prediction_finds_the_same_and_waits_three_times_a_batch(joint, examples):
    model = joint.build_model().float().eval()
    expected = model.predict(collate(examples))
    with Shadow():
        model.to(META)
        with LaunchCounter(META) as counter:
            found = model.predict(collate(examples).to(META))
    assert_same_prediction(found, expected)
    assert 0 < sum(counter.waits.values()) <= MOST_WAITS_OF_PREDICTION


@pytest.mark.gpu
def test_prediction_on_a_gpu_waits_three_times_a_batch(joint, examples):
    model, batch = joint.build_model().float().eval().cuda(), collate(examples)
    expected = model.predict(batch.to("cuda"))  # what is made at the first time
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = model.predict(batch.to("cuda"))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert_same_prediction(found, expected)
    assert sum("synchroniz" in str(warning.message) for warning in caught) <= MOST_WAITS_OF_PREDICTION


@pytest.mark.parametrize("pairs_at_once", [1, 7])
def test_pairs_in_several_parts_are_waited_for_once(joint, monkeypatch, pairs_at_once):
    examples = make_examples(joint.random_sentences(4, [9, 14, 22]), joint.tokenizer(), joint.LABELS, 64)
    model = joint.build_model().float().eval()
    expected = model.predict(collate(examples))
    assert len(expected.relation_class_R) > pairs_at_once
    monkeypatch.setattr("spe_dist.extraction.joint.model.PAIRS_AT_ONCE", pairs_at_once)
    with Shadow():
        model.to(META)
        with LaunchCounter(META) as counter:
            found = model.predict(collate(examples).to(META))
    assert_same_prediction(found, expected)
    assert sum(counter.waits.values()) <= MOST_WAITS_OF_PREDICTION


def test_a_stream_of_sentences_waits_no_more_than_its_batches(joint):
    sentences = joint.random_sentences(2, [12, 3, 40, 7, 0, 19, 5, 5])
    model, maker = joint.build_model(seed=1).float(), ExampleMaker(joint.tokenizer(), None, 60)
    expected = list(predict_sentences(model, maker, sentences, StreamSettings(batch_sentences=3)))
    sizes = []
    with Shadow():
        model.to(META)
        with LaunchCounter(META) as counter:
            found = list(
                predict_sentences(model, maker, sentences, StreamSettings(batch_sentences=3), progress=sizes.append)
            )
    assert [[(e.start, e.end, e.type) for e in s.entities] for s in found] == [
        [(e.start, e.end, e.type) for e in s.entities] for s in expected
    ]
    assert len(sizes) == 3 and sum(counter.waits.values()) <= MOST_WAITS_OF_PREDICTION * len(sizes)


def test_prediction_in_bfloat16_attends_packed_and_waits_no_more(joint):
    model, maker = joint.build_model(seed=1).float(), ExampleMaker(joint.tokenizer(), None, 60)
    model.spe.encoder.to(torch.bfloat16)  # as an `Extractor` has it
    sentences = joint.random_sentences(2, [12, 3, 40, 7])
    with Shadow():
        model.to(META)
        with LaunchCounter(META) as counter:
            found = list(predict_sentences(model, maker, sentences, StreamSettings(bfloat16=True)))
    assert [sentence.words for sentence in found] == [sentence.words for sentence in sentences]
    assert counter.launches["", "_varlen_attn"] == 2
    assert 0 < sum(counter.waits.values()) <= MOST_WAITS_OF_PREDICTION


def step(model, batch, gold_entities, device):
    counter = LaunchCounter(device)
    engine = CountedEngine(model, counter)
    with counter:
        context = RankContext(0, 1, 0, device, None)
        outcome = FinetuneStep(engine, context, 0, "slot")(0, [1e-3], batch, gold_entities)
    return outcome, counter


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_a_step_computes_the_same_dropout_by_slots_too_and_waits_twice(joint, examples, dropout):
    model = joint.build_model(dropout=dropout).float().train()
    gold_entities = torch.arange(len(examples)) % 2 == 0
    batch = collate(examples)
    batch = batch.with_dropout_keys(0, 0, 3, 2 * len(examples), batch.max_windows)
    expected, _ = step(model, batch, gold_entities, torch.device("cpu"))
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    model.zero_grad()
    with Shadow() as shadow:
        model.to(META)
        outcome, counter = step(model, batch, gold_entities, META)
        assert outcome.counts == expected.counts
        for name, value in expected.sums.items():
            torch.testing.assert_close(shadow.read(outcome.sums[name]), value, rtol=1e-5, atol=1e-6)
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(shadow.read(parameter.grad), gradients[name], rtol=1e-4, atol=1e-5)
    assert 0 < sum(counter.waits.values()) <= MOST_WAITS_OF_TRAINING


@pytest.mark.parametrize("by_slot", [False, True])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sixteen_bit_training_attends_packed_with_dropout(joint, dtype, by_slot):
    examples = make_examples(joint.random_sentences(4, [9, 14, 22]), joint.tokenizer(), joint.LABELS, 64)
    with Shadow():
        model = joint.build_model(dropout=0.1).to(dtype).train().to(META)
        batch = collate(examples)
        batch = batch.with_dropout_keys(0, 0, 0, 3, 1) if by_slot else batch
        _, counter = step(model, batch, torch.ones(3, dtype=torch.bool), META)
    names = Counter(name for _, name in counter.launches.elements())
    assert names["_flash_attention_forward"] == names["_flash_attention_backward"] == 2
    assert all(parameter.grad is not None for parameter in model.parameters())
