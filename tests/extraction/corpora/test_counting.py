"""What inspection and training count: each mark once, and many marks in time."""

from __future__ import annotations

import time
from collections import Counter

from spe_dist.extraction.corpora.corpus import Entity, Relation, Sentence
from spe_dist.extraction.corpora.statistics import entity_counts
from spe_dist.extraction.joint.examples import make_examples


def test_marks_given_twice_are_counted_once_among_what_is_not_trained(joint) -> None:
    a, b, strange = Entity(0, 1, "per"), Entity(2, 3, "loc"), Entity(3, 4, "new")
    relations = (Relation("in", a, b), Relation("of", a, b), Relation("of", a, b), Relation("in", a, strange))
    sentence = Sentence(("w1", "w2", "w3", "w4"), (a, b, strange, strange), relations)
    notices: Counter[str] = Counter()
    make_examples([sentence], joint.tokenizer(), joint.LABELS, 64, notices=notices)
    assert notices == {
        "entities of types the model does not know": 1,
        "further relations on one pair, not trained": 1,
    }


def test_thousands_of_entities_in_a_sentence_are_compared_with_their_neighbours_alone() -> None:
    entities = [Entity(i, i + 2, "X") for i in range(0, 60_000, 2)]
    start_s = time.perf_counter()
    counts = entity_counts([*entities, Entity(1, 3, "X")])
    assert counts["crossing_pairs"] == 2 and time.perf_counter() - start_s < 20
