"""Scores of random corpora: against a plain scorer (lists of strings, no keys, no sets; quadratic), and their parts."""

from __future__ import annotations

import random

import pytest

from spe_dist.extraction.corpora.corpus import Corpus, Document, Entity, Relation, Sentence
from spe_dist.extraction.scoring.counts import Counts
from spe_dist.extraction.scoring.scores import score


def plain_counts(gold: Corpus, predicted: Corpus, metric: str) -> Counts:
    tp = n_predicted = n_gold = 0
    for ours, theirs in zip(gold.sentences, predicted.sentences, strict=True):
        gold_items = unique(describe(ours, metric, None))
        predicted_items = unique(describe(theirs, metric, theirs.entities))
        n_gold += len(gold_items)
        n_predicted += len(predicted_items)
        tp += sum(item in gold_items for item in predicted_items)
    return Counts(tp, n_predicted, n_gold)


def describe(sentence: Sentence, metric: str, needed: tuple[Entity, ...] | None) -> list[str]:
    if metric == "entity":
        return [f"{e.type} {e.start} {e.end}" for e in sentence.entities]
    items = []
    for relation in sentence.relations:
        said = [
            f"{e.start} {e.end}" + (f" {e.type}" if metric == "ent_rel" else "") for e in (relation.head, relation.tail)
        ]
        known = [f"{e.start} {e.end}" + (f" {e.type}" if metric == "ent_rel" else "") for e in needed or ()]
        if needed is None or (said[0] in known and said[1] in known):
            items.append(f"{relation.type}: {said[0]} -> {said[1]}")
    return items


def unique(items: list[str]) -> list[str]:
    kept: list[str] = []
    for item in items:
        if item not in kept:
            kept.append(item)
    return kept


def random_corpus(seed: int, noise: int = 0) -> Corpus:
    """Sentences of 1 to 70 words with few spans and types, so that duplicates, overlaps and matches are frequent."""
    layout, draw = random.Random(seed), random.Random(f"{seed} {noise}")
    sentences = []
    for _ in range(80):
        n_words = layout.randint(1, 70)
        entities = [
            Entity(start, min(start + draw.randint(1, 2), n_words), draw.choice("AB"))
            for start in (draw.randrange(min(n_words, 3)) for _ in range(draw.randint(0, 6)))
        ]
        pool = [*entities, *(Entity(i, i + 1, draw.choice("AB")) for i in range(min(2, n_words)))]
        relations = [
            Relation(draw.choice("xy"), draw.choice(pool), draw.choice(pool)) for _ in range(draw.randint(0, 16))
        ]
        sentences.append(Sentence(("w",) * n_words, tuple(entities), tuple(relations)))
    return Corpus(tuple(Document(str(i), tuple(sentences[i : i + 4])) for i in range(0, 80, 4)))


@pytest.mark.parametrize("seed", range(20))
def test_scores_equal_those_of_a_plain_scorer(seed):
    gold, predicted = random_corpus(seed), random_corpus(seed, noise=1)
    scores = score(gold, predicted)
    expected = tuple(plain_counts(gold, predicted, metric) for metric in ("entity", "relation", "ent_rel"))
    assert (scores.entity, scores.relation, scores.ent_rel) == expected
    assert all(counts.tp and counts.tp < counts.gold for counts in expected)


def test_types_and_groups_add_up_to_the_totals():
    gold, predicted = random_corpus(3), random_corpus(3, noise=1)
    scores = score(gold, predicted)
    for metric, total in (("entity", scores.entity), ("relation", scores.relation), ("ent_rel", scores.ent_rel)):
        parts = [
            scores.by_type(metric).values(),
            [getattr(group, metric) for group in scores.by_entities.values()],
            [getattr(group, metric) for group in scores.by_length.values()],
        ]
        assert [sum(part, Counts()) for part in parts] == [total] * 3
    assert sum(group.sentences for group in scores.by_length.values()) == scores.sentences == gold.n_sentences
