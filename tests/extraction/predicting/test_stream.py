"""Prediction of streams: order, batches, windows, context, what stays of a sentence."""

import itertools
from collections import Counter
from dataclasses import replace

import pytest
import torch

from spe_dist.errors import ConfigError
from spe_dist.extraction.corpora.corpus import Sentence
from spe_dist.extraction.joint.batch import collate
from spe_dist.extraction.joint.examples import ExampleMaker, make_examples
from spe_dist.extraction.joint.thresholds import ARGMAX, Thresholds
from spe_dist.extraction.predicting.device import fast_bfloat16
from spe_dist.extraction.predicting.stream import StreamSettings, as_sentences, predict_each, predict_sentences

LENGTHS = [4, 0, 31, 1, 60, 9, 9, 45, 2, 17, 5]


def predict(joint, model, sentences, max_pieces=40, context_pieces=0, **settings):
    maker = ExampleMaker(joint.tokenizer(), None, max_pieces, context_pieces)
    others = {name: settings.pop(name) for name in ("thresholds", "documents", "notices") if name in settings}
    return list(predict_sentences(model, maker, sentences, StreamSettings(**settings), **others))


def rounded(sentence):
    """What was found, with probabilities to 4 digits."""
    entities = [(e.start, e.end, e.type, round(e.probability, 4)) for e in sentence.entities]
    return entities, [(r.type, r.head.span, r.tail.span, round(r.probability, 4)) for r in sentence.relations]


@pytest.mark.parametrize("batch_pieces", [1, 60, 10_000])
@pytest.mark.parametrize("buffered_sentences", [1, 4, 100])
def test_sentences_come_out_in_order_whatever_the_batches(joint, batch_pieces, buffered_sentences):
    model = joint.build_model(seed=1)
    sentences = joint.random_sentences(2, LENGTHS)
    found = predict(joint, model, sentences, batch_pieces=batch_pieces, buffered_sentences=buffered_sentences)
    alone = [predict(joint, model, [sentence])[0] for sentence in sentences]
    assert [sentence.words for sentence in found] == [sentence.words for sentence in sentences]
    assert [rounded(sentence) for sentence in found] == [rounded(sentence) for sentence in alone]
    assert sum(len(sentence.relations) for sentence in found) > 10


def test_several_thresholds_at_once_give_what_each_gives_alone(joint):
    model = joint.build_model(seed=1)
    sentences = joint.random_sentences(2, LENGTHS)
    choices = (ARGMAX, Thresholds(0.05, 0.1), Thresholds(0.4, None))
    maker = ExampleMaker(joint.tokenizer(), None, 40)
    together = list(predict_each(model, maker, sentences, choices, StreamSettings(buffered_sentences=4)))
    for found, thresholds in zip(zip(*together, strict=True), choices, strict=True):
        assert list(found) == predict(joint, model, sentences, buffered_sentences=4, thresholds=thresholds)
    assert len({sum(len(s.entities) for s in found) for found in zip(*together, strict=True)}) == 3


def test_a_sentence_keeps_all_but_its_entities_and_relations(joint):
    original = joint.random_sentences(2, [12])[0]
    original = replace(original, text="a text", char_spans=((0, 1),) * 12, extra={"id": 7})
    (found,) = predict(joint, joint.build_model(seed=1), [original])
    kept = replace(found, entities=original.entities, relations=original.relations)
    assert kept == original and found.extra == {"id": 7}
    assert len(found.entities) > 1 and found.relations
    assert original.entities and not set(original.entities) & set(found.entities), "what was marked is no prediction"
    assert all(0 < thing.probability <= 1 for thing in (*found.entities, *found.relations))
    assert all(relation.head in found.entities and relation.tail in found.entities for relation in found.relations)


def test_a_second_head_turns_the_relation_around(joint):
    model = joint.build_model(seed=1).eval()
    sentences = joint.random_sentences(2, LENGTHS)
    prediction = model.predict(collate(make_examples(sentences, joint.tokenizer(), None, 40)))
    relations = [r for s in as_sentences(prediction, joint.LABELS, sentences) for r in s.relations]
    assert len(relations) == len(prediction.relation_class_R)
    for relation, relation_class in zip(relations, prediction.relation_class_R.tolist(), strict=True):
        assert relation.type == joint.LABELS.relation_types[(relation_class - 1) // 2]
        assert (relation.head.start < relation.tail.start) == (relation_class % 2 == 1)


def test_a_stream_is_read_no_further_than_the_buffer(joint):
    taken = []

    def endless():
        for number in itertools.count():
            taken.append(number)
            yield Sentence(("w1", "w2", "w3"))

    maker = ExampleMaker(joint.tokenizer(), None, 40)
    stream = predict_sentences(joint.build_model(), maker, endless(), StreamSettings(buffered_sentences=5))
    assert next(stream).words == ("w1", "w2", "w3")
    assert len(taken) == 5


@pytest.mark.parametrize("buffered_sentences", [1, 3, 100])
def test_context_is_that_of_the_documents_across_buffers(joint, buffered_sentences):
    model = joint.build_model(seed=1)
    sentences = joint.random_sentences(2, [3, 4, 2, 6, 5, 3, 7, 2, 4])
    documents = [0, 0, 0, 0, 1, 1, 2, 2, 2]
    options = {"context_pieces": 6, "documents": documents}
    found = predict(joint, model, sentences, 60, buffered_sentences=buffered_sentences, **options)
    examples = make_examples(sentences, joint.tokenizer(), None, 60, 6, documents)
    whole = as_sentences(model.eval().predict(collate(examples)), joint.LABELS, sentences)
    assert [rounded(sentence) for sentence in found] == [rounded(sentence) for sentence in whole]
    without = predict(joint, model, sentences, 60)
    assert [rounded(sentence) for sentence in found] != [rounded(sentence) for sentence in without]


def test_what_windows_cut_off_is_counted(joint):
    notices = Counter()
    predict(joint, joint.build_model(seed=1), joint.random_sentences(2, [70, 5]), max_pieces=16, notices=notices)
    assert notices["sentences longer than the encoder reads, read in windows"] == 1
    assert notices["pairs of predicted entities that no window holds, left out"] > 0


def test_more_pieces_than_the_encoder_has_positions_are_refused(joint):
    with pytest.raises(ConfigError, match="max_pieces=131"):
        predict(joint, joint.build_model(), [], max_pieces=131)


def test_nothing_in_gives_nothing_out_and_the_mode_stays(joint):
    model = joint.build_model().train()
    assert predict(joint, model, []) == []
    assert model.training
    predict(joint, model, joint.random_sentences(0, [3]))
    assert model.training


def test_bfloat16_finds_nearly_the_same(joint):
    model = joint.build_model(seed=1, spread=4.0).float()
    sentences = joint.random_sentences(2, LENGTHS)
    plain, fast = predict(joint, model, sentences), predict(joint, model, sentences, bfloat16=True)
    spans = [{(i, e.start, e.end) for i, s in enumerate(found) for e in s.entities} for found in (plain, fast)]
    assert len(spans[0] & spans[1]) > 0.7 * len(spans[0] | spans[1]) > 0
    assert fast_bfloat16("cpu") in (False, True)
    assert torch.get_autocast_dtype("cpu") == torch.bfloat16
