"""The highest recall: what no prediction of flat entities and one relation a pair can hold, counted by reason."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Iterable

import pytest
from project import SHARED

from spe_dist.extraction.corpora.corpus import (
    Corpus,
    CrossEntity,
    CrossRelation,
    Document,
    Entity,
    Labels,
    Relation,
    Sentence,
)
from spe_dist.extraction.formats import read_corpus
from spe_dist.extraction.scoring.ceiling import (
    ACROSS,
    BETWEEN_OVERLAPPING,
    CONTESTED,
    FURTHER,
    GAPS,
    GAPS_IN_ARGUMENT,
    NESTED,
    NOT_LEARNED,
    SAME_WORDS,
    UNTYPED_ARGUMENT,
    ceiling_lines,
    gold_ceiling,
)
from spe_dist.extraction.scoring.flat_choice import Node, Pair, most_flat, most_pairs
from spe_dist.extraction.scoring.scores import score
from spe_dist.extraction.scoring.table import scores_table

WORDS = tuple("abcdefghij")
A, B, C = Entity(0, 3, "X"), Entity(4, 5, "Y"), Entity(7, 9, "X")
INSIDE = Entity(1, 2, "X")


def corpus(entities: Iterable[Entity], relations: Iterable[Relation] = ()) -> Corpus:
    return Corpus((Document("d", (Sentence(WORDS, tuple(entities), tuple(relations)),)),))


def test_all_of_flat_gold_can_be_found():
    ceiling = gold_ceiling(corpus([A, B, A], [Relation("R", A, B)]))
    assert ceiling.is_complete and ceiling.entity.gold == 2 and ceiling.ent_rel.recall == 1.0
    assert ceiling_lines(ceiling) == []


def test_each_lost_entity_counts_once_by_its_reason():
    parted = Entity(4, 9, "X", fragments=((4, 5), (8, 9)))
    ceiling = gold_ceiling(corpus([A, INSIDE, Entity(0, 3, "Z"), parted, C, Entity(2, 4, "X")]))
    assert ceiling.entity.lost == {GAPS: 1, SAME_WORDS: 1, NESTED: 1}  # of A, INSIDE and 2..4 two are flat
    assert ceiling.entity.gold == 6 and ceiling.entity.recall == pytest.approx(3 / 6)


def test_each_lost_relation_counts_once_by_its_reason():
    parted, nobody = Entity(4, 9, "X", fragments=((4, 5), (8, 9))), Entity(9, 10, "")
    relations = [
        *(Relation("R", A, B), Relation("R", A, B), Relation("S", A, B), Relation("R", B, A)),
        *(Relation("R", A, INSIDE), Relation("R", A, A), Relation("R", A, parted), Relation("R", A, nobody)),
        Relation("R", INSIDE, C),
    ]
    ceiling = gold_ceiling(corpus([A, B, C, INSIDE, parted], relations))
    shared = {GAPS_IN_ARGUMENT: 1, BETWEEN_OVERLAPPING: 2, FURTHER: 2, CONTESTED: 1}
    assert ceiling.relation.lost == shared
    assert ceiling.ent_rel.lost == {**shared, UNTYPED_ARGUMENT: 1}
    assert (ceiling.relation.gold, ceiling.ent_rel.recall) == (8, pytest.approx(1 / 8))


def test_a_span_of_two_types_can_have_one_of_them_in_ent_rel():
    other = Entity(0, 3, "Z")
    ceiling = gold_ceiling(corpus([A, other, B, C], [Relation("R", A, B), Relation("R", other, C)]))
    assert ceiling.relation.lost == {} and ceiling.ent_rel.lost == {CONTESTED: 1}


def test_both_directions_of_a_symmetric_type_are_one():
    both = corpus([A, B], [Relation("R", A, B), Relation("R", B, A)])
    assert gold_ceiling(both).relation.lost == {FURTHER: 1}
    assert gold_ceiling(both, symmetric=["R"]).is_complete


def test_what_a_model_does_not_know_cannot_be_found():
    given = corpus([A, B, C], [Relation("R", A, B), Relation("S", A, C)])
    ceiling = gold_ceiling(given, labels=Labels(("X",), ("S", "R")))
    assert ceiling.entity.lost == {NOT_LEARNED: 1} and ceiling.entity.lost_types == {"Y": 1}
    assert not ceiling.relation.lost
    assert ceiling.ent_rel.lost == {NOT_LEARNED: 1}


def crossing() -> Corpus:
    """Half of the relations lie between sentences, and one type does only there."""
    ada, acme, she = CrossEntity(0, 1, "P"), Entity(3, 4, "C"), Entity(0, 1, "P")
    first = Sentence(("Ada", "works", "for", "Acme"), (Entity(0, 1, "P"), acme), (Relation("works", she, acme),))
    second = Sentence(("She", "likes", "it"), (she,))
    relation = CrossRelation("coref", CrossEntity(4, 5, "P"), ada)
    return Corpus(tuple(Document(str(i), (first, second), (), (relation,)) for i in range(6)))


def test_relations_across_sentences_and_types_that_are_only_there_are_said_with_counts():
    gold = crossing()
    assert gold_ceiling(gold).relation.lost == {ACROSS: 6}
    lines = ceiling_lines(gold_ceiling(gold))
    assert lines == [
        "6 of 12 relations cannot be found (recall 50.0% at most): across sentences: 6",
        "relation types of which nothing can be found: coref: 6",
    ]
    scores = score(gold, gold.with_sentences(gold.sentences))
    assert scores.ceiling == gold_ceiling(gold) and scores.relation.recall == scores.ceiling.relation.recall == 0.5
    assert all(line in scores_table(scores) for line in lines)
    assert scores.to_json()["ceiling"]["relation"]["recall"] == 0.5


@pytest.mark.skipif(not (SHARED / "cases").is_dir(), reason="the shared cases are not here")
def test_half_of_the_relations_of_the_case_lie_across_sentences():
    ceiling = gold_ceiling(read_corpus(SHARED / "cases/annotations/crossing.jsonl"))
    assert (ceiling.relation.gold, ceiling.relation.lost, ceiling.entity.n_lost) == (12, {ACROSS: 6}, 0)


def test_most_flat_spans_agree_with_trying_all_subsets():
    rng = random.Random(0)
    for _ in range(200):
        spans = [(start, start + rng.randint(1, 4)) for start in (rng.randrange(8) for _ in range(rng.randrange(6)))]

        def is_flat(chosen: tuple[tuple[int, int], ...]) -> bool:
            return all(a[1] <= b[0] or b[1] <= a[0] for a, b in itertools.combinations(chosen, 2))

        subsets = itertools.chain.from_iterable(itertools.combinations(set(spans), n) for n in range(len(spans) + 1))
        assert most_flat(spans) == max(len(chosen) for chosen in subsets if is_flat(chosen))


def node(start: int, end: int, name: str = "") -> Node:
    return (start, end, ()), name


def drawn_pairs(rng: random.Random) -> set[Pair]:
    starts = [rng.randrange(9) for _ in range(rng.randint(2, 7))]
    nodes = sorted({node(start, start + rng.randint(1, 4), rng.choice("XY")) for start in starts})
    pairs = [p for p in itertools.combinations(nodes, 2) if p[0][0][1] <= p[1][0][0]]
    return set(rng.sample(pairs, rng.randint(0, len(pairs))))


def test_most_pairs_agree_with_trying_all_choices_of_flat_spans():
    rng = random.Random(1)
    for _ in range(300):
        pairs = drawn_pairs(rng)
        nodes = sorted({n for pair in pairs for n in pair})
        best = 0
        for size in range(len(nodes) + 1):
            for chosen in itertools.combinations(nodes, size):
                if all(a[0][1] <= b[0][0] or b[0][1] <= a[0][0] for a, b in itertools.combinations(chosen, 2)):
                    best = max(best, sum(first in chosen and second in chosen for first, second in pairs))
        assert most_pairs(pairs) == best
        assert most_pairs(pairs, most_visits=0) >= best


def test_many_overlapping_arguments_end_in_an_upper_bound_in_time():
    rng = random.Random(2)
    nodes = sorted({node(start, start + rng.randint(1, 9)) for start in range(60) for _ in range(4)})
    pairs = {(a, b) for a in nodes for b in nodes if a[0][1] <= b[0][0] and rng.random() < 0.02}
    began = time.perf_counter()
    assert 0 < most_pairs(pairs) <= len(pairs)
    assert time.perf_counter() - began < 10


def test_relations_between_given_entities_may_have_arguments_that_overlap_others():
    nobody = Entity(9, 10, "")
    relations = [Relation("R", A, B), Relation("R", INSIDE, C), Relation("S", A, B), Relation("R", A, nobody)]
    given = corpus([A, B, C, INSIDE], relations)
    ceiling = gold_ceiling(given, labels=Labels(("other",), ("R", "S")), given_entities=True)
    assert ceiling.entity.recall == 1.0 and ceiling.relation.lost == {UNTYPED_ARGUMENT: 1, FURTHER: 1}
    assert gold_ceiling(given).relation.lost == {FURTHER: 1, CONTESTED: 1}
