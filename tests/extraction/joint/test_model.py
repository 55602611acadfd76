"""The joint model against sentence by sentence, span by span and pair by pair: losses, gradients, predictions."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from spe_dist.config.finetuning import PAIR_FEATURES, TYPING_FEATURES
from spe_dist.errors import ConfigError
from spe_dist.extraction.corpora.corpus import Entity, Labels, Relation, Sentence
from spe_dist.extraction.joint.batch import collate
from spe_dist.extraction.joint.choices import choose_relations
from spe_dist.extraction.joint.examples import make_examples
from spe_dist.extraction.joint.features import Features
from spe_dist.extraction.joint.model import JointModel
from spe_dist.extraction.joint.posteriors import SpanPosteriors
from spe_dist.extraction.joint.tags import best_tags, spans_of_tags
from spe_dist.extraction.joint.thresholds import Thresholds
from spe_dist.finetuning.sampling import draw_spans
from spe_dist.model.spe import SpeModel

BATCHES = {
    "several lengths": ([9, 1, 14, 0, 5, 22], 64),
    "long sentences in windows": ([9, 60, 1, 33, 45], 20),
    "one word": ([1], 64),
    "no words at all": ([0, 0], 64),
}


def decoded(logits):
    tags = best_tags(logits.detach(), torch.tensor([0, len(logits)]), len(logits))
    return list(zip(*(part.tolist() for part in spans_of_tags(tags)), strict=True))


def slow_losses(joint, model, examples, gold_entities, negative):
    """Sums and counts of the three losses, by METHOD's words; `negative`: spans of each sentence."""
    sums, counts = {"detection": 0.0, "typing": 0.0, "relation": 0.0}, {"detection": 0, "typing": 0, "relation": 0}

    def add(name, logits, label):
        sums[name] = sums[name] + F.cross_entropy(logits, torch.tensor(label))
        counts[name] += 1

    for example, use_gold, further in zip(examples, gold_entities, negative, strict=True):
        reader, gold = joint.SlowReader(model, example), example.gold
        logits = reader.tag_logits()
        for row, tag in zip(logits, gold.tags.tolist(), strict=True):
            add("detection", row, tag)
        gold_spans = [tuple(span) for span in gold.spans.tolist()]
        gold_class = dict(zip(gold_spans, gold.classes.tolist(), strict=True))
        predicted = [span for span in decoded(logits) if reader.best_window(*span) is not None]
        further = {span for span in further if reader.best_window(*span) is not None}
        candidates = sorted({*predicted, *gold_spans, *further})
        entities, known = [], {}
        for span in candidates:
            type_logits = reader.type_logits(*span)
            add("typing", type_logits, gold_class.get(span, 0))
            found = int(type_logits.argmax())
            known[span] = gold_class.get(span, 0) if use_gold or found == 0 else found
            if gold_class.get(span, 0) > 0 if use_gold else span in predicted and type_logits.argmax() > 0:
                entities.append(span)
        pairs = {(a, b): 0 for a, b in itertools.combinations(entities, 2) if a[1] <= b[0]}
        pairs = {pair: 0 for pair in pairs if reader.best_window(pair[0][0], pair[1][1]) is not None}
        for (first, second), label in zip(gold.pairs.tolist(), gold.pair_classes.tolist(), strict=True):
            pairs[gold_spans[first], gold_spans[second]] = label
        for (first, second), label in pairs.items():
            add("relation", reader.relation_logits(first, second, (known[first], known[second])), label)
    return sums, counts


EVERYTHING = Features(TYPING_FEATURES, PAIR_FEATURES, 3)


@pytest.mark.parametrize(
    ("cls_source", "own_context", "features", "per_sentence"),
    [("state", True, None, 0), ("pooler", False, None, 12), ("pooler", True, EVERYTHING, 12)],
)
@pytest.mark.parametrize(("lengths", "max_pieces"), BATCHES.values(), ids=BATCHES.keys())
def test_losses_and_gradients_equal_the_plain_form(
    joint, lengths, max_pieces, cls_source, own_context, features, per_sentence
):
    model = joint.build_model(cls_source=cls_source, own_context=own_context, features=features)
    examples = make_examples(joint.random_sentences(4, lengths), joint.tokenizer(), joint.LABELS, max_pieces)
    gold_entities = [number % 2 == 0 for number in range(len(lengths))]
    batch = collate(examples)
    words_B, before_B = batch.sentence_borders_B1.diff().numpy(), batch.sentence_borders_B1[:-1].numpy()
    start_N, end_N = draw_spans(words_B, before_B, per_sentence, 4, 1, 2)
    of_N = np.searchsorted(before_B + words_B, start_N, side="right")
    negative = [
        [(int(a - before), int(b - before)) for a, b, of in zip(start_N, end_N, of_N, strict=True) if of == number]
        for number, before in enumerate(before_B)
    ]
    outputs = model(batch.with_negative_spans(start_N, end_N), torch.tensor(gold_entities))
    sums, counts = slow_losses(joint, model, examples, gold_entities, negative)
    assert {name: term.count for name, term in outputs.terms.items()} == counts
    for name, term in outputs.terms.items():
        torch.testing.assert_close(term.loss_sum.double(), torch.as_tensor(sums[name]).double(), rtol=1e-5, atol=1e-5)
    weights = {"detection": 1.0, "typing": 0.7, "relation": 1.3}
    parameters = dict(model.named_parameters())
    total = sum(weights[name] * term.loss_sum for name, term in outputs.terms.items()) + outputs.anchor
    ours = torch.autograd.grad(total, list(parameters.values()), allow_unused=True)
    assert all(gradient is not None for gradient in ours), "a module was not called"
    slow_total = sum(weights[name] * sums[name] for name in sums)
    if not isinstance(slow_total, torch.Tensor):
        assert all((gradient == 0).all() for gradient in ours)
        return
    plain = torch.autograd.grad(slow_total, list(parameters.values()), allow_unused=True)
    for name, mine, theirs in zip(parameters, ours, plain, strict=True):
        theirs = torch.zeros_like(mine) if theirs is None else theirs
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("features", [None, EVERYTHING])
@pytest.mark.parametrize(("lengths", "max_pieces"), BATCHES.values(), ids=BATCHES.keys())
def test_predictions_equal_the_plain_form(joint, lengths, max_pieces, features):
    model = joint.build_model(seed=1, features=features).eval()
    examples = make_examples(joint.random_sentences(5, lengths), joint.tokenizer(), None, max_pieces)
    found = model.predict(collate(examples))
    entities, relations = [], []
    overlong = apart = 0
    for number, example in enumerate(examples):
        reader = joint.SlowReader(model, example)
        of_sentence, known = [], {}
        for span in decoded(reader.tag_logits()):
            if reader.best_window(*span) is None:
                overlong += 1
                continue
            entity_class = int(reader.type_logits(*span).argmax())
            if entity_class > 0:
                of_sentence.append(span)
                known[span] = entity_class
                entities.append((number, *span, entity_class))
        for first, second in itertools.combinations(of_sentence, 2):
            if reader.best_window(first[0], second[1]) is None:
                apart += 1
                continue
            probability, relation_class = (
                reader.relation_logits(first, second, (known[first], known[second])).detach().softmax(0).max(0)
            )
            if relation_class > 0:
                relations.append((number, *first, *second, int(relation_class), float(probability)))
    assert (found.overlong_spans, found.apart_pairs) == (overlong, apart)
    assert found_entities(found) == entities
    ours = [
        (*found_entities(found)[a][:3], *found_entities(found)[b][1:3], relation_class, probability)
        for a, b, relation_class, probability in rows(
            found.relation_first_R, found.relation_second_R, found.relation_class_R, found.relation_probability_R
        )
    ]
    assert [relation[:-1] for relation in ours] == [relation[:-1] for relation in relations]
    assert [relation[-1] for relation in ours] == pytest.approx([relation[-1] for relation in relations], abs=1e-5)
    if max_pieces == 20:
        assert apart > 0 and len(relations) > 0


def rows(*columns):
    return list(zip(*(column.tolist() for column in columns), strict=True))


def found_entities(found):
    return rows(found.entity_sentence_E, found.entity_start_E, found.entity_end_E, found.entity_class_E)


def test_many_pairs_in_parts_are_the_same_as_together(joint, monkeypatch):
    model = joint.build_model(seed=1).eval()
    batch = collate(make_examples(joint.random_sentences(5, [30, 22, 41]), joint.tokenizer(), None, 128))
    whole = model.predict(batch)
    monkeypatch.setattr("spe_dist.extraction.joint.model.PAIRS_AT_ONCE", 3)
    parts = model.predict(batch)
    assert whole.relation_class_R.shape[0] > 3
    assert parts.relation_class_R.tolist() == whole.relation_class_R.tolist()
    torch.testing.assert_close(parts.relation_probability_R, whole.relation_probability_R)


def test_the_probability_of_an_entity_is_that_of_its_type_times_that_of_its_span(joint):
    model = joint.build_model(seed=2).eval()
    examples = make_examples(joint.random_sentences(1, [25]), joint.tokenizer(), None, 128)
    found = model.predict(collate(examples))
    reader = joint.SlowReader(model, examples[0])
    log_probs = reader.tag_logits().detach().log_softmax(1)
    assert len(found.entity_start_E) > 0
    for start, end, probability in rows(found.entity_start_E, found.entity_end_E, found.entity_probability_E):
        of_span = SpanPosteriors(log_probs, torch.tensor([0, 25]), 25).of(torch.tensor([start]), torch.tensor([end]))
        of_type = reader.type_logits(start, end).detach().softmax(0).max()
        assert probability == pytest.approx(float(of_span * of_type), rel=1e-4)


def kept_plainly(joint, model, example, thresholds):
    """All spans of a sentence typed one by one, and all pairs of what is kept: what thresholds choose, plainly."""
    reader, n_words = joint.SlowReader(model, example), example.n_words
    posteriors = SpanPosteriors(reader.tag_logits().detach().log_softmax(1), torch.tensor([0, n_words]), n_words)
    spans = []
    for start, end in itertools.combinations(range(n_words + 1), 2):
        of_span = float(posteriors.of(torch.tensor([start]), torch.tensor([end])))
        of_type, entity_class = reader.type_logits(start, end).detach().softmax(0)[1:].max(0)
        if of_span * float(of_type) >= thresholds.entities:
            spans.append((of_span * float(of_type), start, end, int(entity_class) + 1))
    entities = []
    for _, start, end, entity_class in sorted(spans, key=lambda span: -span[0]):
        if all(end <= a or start >= b for a, b, _ in entities):
            entities.append((start, end, entity_class))
    relations = []
    for first, second in itertools.combinations(sorted(entities), 2):
        of_pair = reader.relation_logits(first[:2], second[:2]).detach().softmax(0)
        probability, relation_class = of_pair[1:].max(0)
        if thresholds.relations is None and of_pair.argmax() > 0:
            relations.append((first[:2], second[:2], int(of_pair.argmax())))
        elif thresholds.relations is not None and probability >= thresholds.relations:
            relations.append((first[:2], second[:2], int(relation_class) + 1))
    return sorted(entities), relations


@pytest.mark.parametrize("thresholds", [Thresholds(0.05, 0.1), Thresholds(0.1, 0.15), Thresholds(0.02, None)])
def test_thresholds_keep_what_is_probable_enough_of_all_spans_and_pairs(joint, thresholds):
    model = joint.build_model(seed=1).eval()
    examples = make_examples(joint.random_sentences(5, [9, 1, 14]), joint.tokenizer(), None, 64)
    found = model.predict(collate(examples), thresholds=thresholds)
    entities = found_entities(found)
    relations = rows(found.relation_first_R, found.relation_second_R, found.relation_class_R)
    n_kept = 0
    for number, example in enumerate(examples):
        ours = [entity[1:] for entity in entities if entity[0] == number]
        theirs, related = kept_plainly(joint, model, example, thresholds)
        assert ours == theirs
        of_sentence = [(entities[a][1:3], entities[b][1:3], c) for a, b, c in relations if entities[a][0] == number]
        assert of_sentence == related
        n_kept += len(related)
    assert n_kept > 0


def test_a_low_threshold_holds_all_that_higher_ones_keep(joint):
    model = joint.build_model(seed=1).eval()
    batch = collate(make_examples(joint.random_sentences(6, [12, 20]), joint.tokenizer(), None, 64))

    def kept(entities, relations):
        found = model.predict(batch, thresholds=Thresholds(entities, relations))
        spans, chances = found_entities(found), found.entity_probability_E.tolist()
        pairs = rows(found.relation_first_R, found.relation_second_R, found.relation_class_R)
        related = {
            (spans[a], spans[b], c, round(p, 5))
            for (a, b, c), p in zip(pairs, found.relation_probability_R.tolist(), strict=True)
        }
        return dict(zip(spans, chances, strict=True)), related

    low, low_related = kept(0.02, 0.05)
    high, high_related = kept(0.1, 0.2)
    assert high.keys() == {span for span, chance in low.items() if chance >= 0.1} and len(high) < len(low)
    assert high_related == {r for r in low_related if {r[0], r[1]} <= high.keys() and r[3] >= 0.2}


def test_a_model_without_relation_types_takes_a_threshold(joint):
    model = joint.build_model(seed=1).eval()
    batch = collate(make_examples(joint.random_sentences(6, [12]), joint.tokenizer(), None, 64))
    assert choose_relations(torch.ones(3, 1), 0.5)[0].tolist() == [0, 0, 0]
    assert len(model.predict(batch, thresholds=Thresholds(1.0, 0.5)).entity_start_E) == 0


def test_a_model_without_relation_types_classifies_no_pairs_and_every_parameter_still_has_a_gradient(joint):
    labels = Labels(joint.LABELS.entity_types, ())
    model = joint.build_model(seed=1, labels=labels)
    sentences = [replace(sentence, relations=()) for sentence in joint.random_sentences(6, [12, 9])]
    batch = collate(make_examples(sentences, joint.tokenizer(), labels, 64))
    outputs = model(batch, torch.full((2,), True))
    assert outputs.terms["relation"].count == 0 and outputs.terms["typing"].count > 1
    (sum(term.loss_sum for term in outputs.terms.values()) + outputs.anchor).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    found = model.eval().predict(batch)
    assert len(found.entity_start_E) > 1 and len(found.relation_class_R) == found.overlapping_pairs == 0


def test_a_batch_gives_the_losses_of_its_sentences_one_by_one(joint):
    model = joint.build_model()
    examples = make_examples(joint.random_sentences(9, [8, 30, 3]), joint.tokenizer(), joint.LABELS, 64)
    together = model(collate(examples), torch.ones(3, dtype=torch.bool)).terms
    alone = [model(collate([example]), torch.ones(1, dtype=torch.bool)).terms for example in examples]
    for name, term in together.items():
        assert term.count == sum(terms[name].count for terms in alone)
        torch.testing.assert_close(term.loss_sum, sum(terms[name].loss_sum for terms in alone), rtol=1e-5, atol=1e-5)
        assert term.correct == sum(terms[name].correct for terms in alone)


def test_a_small_corpus_can_be_learnt_by_heart(joint):
    torch.manual_seed(0)
    a, b = Entity(1, 3, "per"), Entity(5, 6, "loc")
    sentences = [
        Sentence(("w1", "w2", "w3", "w4", "w5", "w6"), (a, b), (Relation("in", a, b),)),
        Sentence(("w7", "w2", "w3", "w8", "w5", "w6"), (a, b), (Relation("of", b, a),)),
        Sentence(("w9", "w9", "w9"), (), ()),
    ]
    model = joint.build_model(spread=3.0, dropout=0.1).float()
    batch = collate(make_examples(sentences, joint.tokenizer(), joint.LABELS, 32))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(150):
        outputs = model(batch, torch.ones(3, dtype=torch.bool))
        optimizer.zero_grad()
        sum(term.loss_sum / max(term.count, 1) for term in outputs.terms.values()).backward()
        optimizer.step()
    found = model.eval().predict(batch)
    assert found.entity_class_E.tolist() == [3, 1, 3, 1]
    assert found.entity_start_E.tolist() == [1, 5, 1, 5]
    assert found.relation_class_R.tolist() == [1, 4]


def test_heads_start_as_method_says_and_a_contrastive_head_is_left_out(joint):
    model = joint.build_model(spread=1.0)
    assert abs(model.relation_head[0].linear.weight.std().item() - 0.02) < 5e-3
    assert (model.detection_head.bias == 0).all() and (model.typing_head.bias == 0).all()
    assert model.spe.contrastive_head is None
    sizes = [model.relation_head[0].linear.out_features, model.relation_head[1].linear.out_features]
    assert [*sizes, model.relation_head[2].out_features] == [10, 8, 5]


def test_an_encoder_without_span_encoders_is_refused(joint):
    bare = SpeModel(joint.build_model().spe.encoder)
    with pytest.raises(ConfigError, match="pre-trained without CSPO"):
        JointModel(bare, Labels(("a",), ()))


@pytest.mark.parametrize("lengths", [[30, 40], [0]])
def test_heads_see_the_encoders_states_through_dropout_in_training_alone(joint, lengths):
    model = joint.build_model(dropout=0.5, cls_source="pooler")
    seen = {}
    readers = {"word": model.spe.span_encoder.conv_layers[0], "[CLS]": model.spe.pair_encoder.query_linear}
    for name, module in readers.items():
        module.register_forward_pre_hook(lambda _, inputs, name=name: seen.update({name: inputs[0]}))
    batch = collate(make_examples(joint.random_sentences(0, lengths), joint.tokenizer(), joint.LABELS, 128))
    terms = model(batch, torch.full((len(lengths),), True)).terms
    assert all(torch.isfinite(term.loss_sum) for term in terms.values())
    if lengths != [0]:
        assert 0.4 < (seen["word"] == 0).double().mean() < 0.6
    assert 0 < (seen["[CLS]"] == 0).sum() < seen["[CLS]"].numel()
    seen.clear()
    model.eval().predict(batch)
    assert all((states != 0).all() for states in seen.values())


def test_every_batch_calls_the_same_modules_in_the_same_order(joint):
    model = joint.build_model(seed=1, cls_source="pooler")
    calls = []
    for name, module in model.named_modules():
        if next(module.children(), None) is None:
            module.register_forward_hook(lambda *_, name=name: calls.append(name))
    orders = set()
    for seed, (lengths, max_pieces) in enumerate(BATCHES.values()):
        examples = make_examples(joint.random_sentences(seed, lengths), joint.tokenizer(), joint.LABELS, max_pieces)
        for gold in (True, False):
            calls.clear()
            model(collate(examples), torch.full((len(lengths),), gold))
            orders.add(tuple(calls))
    assert len(orders) == 1
    assert {name.rpartition(".")[0] for name, _ in model.named_parameters()} <= set(calls)
