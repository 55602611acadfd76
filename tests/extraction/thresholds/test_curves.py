"""Curves by the least probability: each point is the score of what is left at that threshold, and the best is named."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace

from spe_dist.extraction.corpora.corpus import Corpus, CrossEntity, CrossRelation, Document, Entity, Relation, Sentence
from spe_dist.extraction.predicting.results import MinProbability
from spe_dist.extraction.scoring.counts import Counts
from spe_dist.extraction.scoring.scores import score
from spe_dist.extraction.thresholds.curves import GRID, threshold_curves

WORDS = tuple("abcdefgh")


def drawn(seed: int) -> tuple[Corpus, Corpus]:
    """Gold, and predictions that are half right; some gold lies across sentences."""
    rng = random.Random(seed)
    gold, predicted = [], []
    for number in range(12):
        entities = [Entity(i, i + rng.randint(1, 2), rng.choice("XY")) for i in (0, 2, 4, 6)]
        relations = [Relation("R", a, b) for a, b in itertools.pairwise(entities) if rng.random() < 0.6]
        found = [
            replace(e, type=e.type if rng.random() < 0.7 else "Z", probability=round(rng.uniform(0.01, 1), 3))
            for e in entities
        ]
        related = [
            Relation("R", a, b, round(rng.uniform(0.01, 1), 3))
            for a in found
            for b in found
            if a < b and rng.random() < 0.6
        ]
        across = (CrossRelation("R", CrossEntity(0, 1, "X"), CrossEntity(9, 10, "X")),) if number == 3 else ()
        sentences = (Sentence(WORDS, tuple(entities), tuple(relations)), Sentence(WORDS))
        gold.append(Document(str(number), sentences, (), across))
        predicted.append(Document(str(number), (Sentence(WORDS, tuple(found), tuple(related)), Sentence(WORDS))))
    return Corpus(tuple(gold)), Corpus(tuple(predicted))


def test_each_point_is_the_score_of_what_is_left():
    gold, predicted = drawn(0)
    curves = threshold_curves(gold, predicted)
    for index in range(0, len(GRID), 7):
        left = MinProbability(GRID[index], 0.0)
        kept = predicted.with_sentences([left.apply(sentence) for sentence in predicted.sentences])
        assert curves.entities[index].entity == score(gold, kept).entity
        left = MinProbability(curves.best_entities, GRID[index])
        scores = score(gold, predicted.with_sentences([left.apply(sentence) for sentence in predicted.sentences]))
        assert (curves.relations[index].relation, curves.relations[index].ent_rel) == (scores.relation, scores.ent_rel)


def test_the_best_thresholds_are_those_of_the_best_f1():
    gold, predicted = drawn(1)
    curves = threshold_curves(gold, predicted)
    by_threshold = {point.threshold: point.entity.f1 for point in curves.entities}
    assert by_threshold[curves.best_entities] == max(by_threshold.values())
    of_relations = {point.threshold: point.ent_rel.f1 for point in curves.relations}
    assert of_relations[curves.best_relations] == max(of_relations.values())


def test_of_equally_good_thresholds_the_middle_of_the_longest_run_is_taken():
    right, wrong = Entity(0, 1, "X", probability=0.9), Entity(2, 3, "X", probability=0.4)
    gold = Corpus((Document("d", (Sentence(WORDS, (right,)),)),))
    predicted = Corpus((Document("d", (Sentence(WORDS, (right, wrong)),)),))
    curves = threshold_curves(gold, predicted)
    assert curves.best_entities == 0.65  # 0.41 to 0.90
    assert curves.entities[0].entity == Counts(1, 2, 1) and curves.entities[-1].entity == Counts(0, 0, 1)


def test_lengths_compare_probabilities_with_what_is_right():
    found = (Entity(0, 1, "X", probability=0.8), Entity(1, 2, "Y", probability=0.4), Entity(2, 8, "X", probability=0.6))
    gold = Corpus((Document("d", (Sentence(WORDS, (found[0], found[2])),)),))
    rows = threshold_curves(gold, Corpus((Document("d", (Sentence(WORDS, found),)),))).by_length
    assert [(row.words, row.predicted, round(row.probability, 3), row.right) for row in rows] == [
        ("1", 2, 0.6, 0.5),
        ("5 or more", 1, 0.6, 1.0),
    ]
