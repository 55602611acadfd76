"""Scores on corpora small enough to count by hand."""

from __future__ import annotations

import json

import pytest

from spe_dist.errors import DataError
from spe_dist.extraction.corpora.corpus import Corpus, CrossEntity, CrossRelation, Document, Entity, Relation, Sentence
from spe_dist.extraction.formats import read_corpus
from spe_dist.extraction.scoring.counts import ACROSS, Counts, entities_group, length_group
from spe_dist.extraction.scoring.scores import Scores, score
from spe_dist.extraction.scoring.table import scores_table

WORDS = tuple("Kim Lee of Acme Corp lives in Oslo".split())
KIM, LEE = Entity(0, 1, "Person"), Entity(1, 2, "Person")
ACME, OSLO = Entity(3, 5, "Company"), Entity(7, 8, "City")
WORKS, LIVES = Relation("works_for", KIM, ACME), Relation("lives_in", KIM, OSLO)


def corpus(*marked: tuple[tuple[Entity, ...], tuple[Relation, ...]], words: tuple[str, ...] = WORDS) -> Corpus:
    """One document a sentence, all of the same words."""
    return Corpus(tuple(Document(str(i), (Sentence(words, *both),)) for i, both in enumerate(marked)))


def scores_of(gold: tuple, predicted: tuple, **options) -> Scores:
    return score(corpus(gold), corpus(predicted), **options)


def three(scores: Scores) -> tuple[Counts, Counts, Counts]:
    return scores.entity, scores.relation, scores.ent_rel


GOLD = ((KIM, ACME, OSLO), (WORKS, LIVES))


def test_gold_scored_against_itself_is_all_right():
    scores = scores_of(GOLD, GOLD)
    assert three(scores) == (Counts(3, 3, 3), Counts(2, 2, 2), Counts(2, 2, 2))
    assert scores.exact_f1_sum == 2.0
    assert scores.notices == {}


def test_precision_recall_and_f1_follow_from_the_counts():
    counts = Counts(tp=3, predicted=4, gold=5)
    assert (counts.precision, counts.recall) == (0.75, 0.6)
    assert counts.f1 == pytest.approx(2 * 0.75 * 0.6 / (0.75 + 0.6))


def test_duplicates_count_once_in_gold_and_in_predictions():
    scores = scores_of(
        ((KIM, ACME, KIM), (WORKS, WORKS)),
        ((KIM, KIM, ACME, LEE, LEE), (WORKS, WORKS, WORKS)),
    )
    assert three(scores) == (Counts(2, 3, 2), Counts(1, 1, 1), Counts(1, 1, 1))
    assert scores.notices == {
        "gold entities given more than once (counted once)": 1,
        "gold relations given more than once (counted once)": 1,
        "predicted entities given more than once (counted once)": 2,
        "predicted relations given more than once (counted once)": 2,
    }


def test_probabilities_make_no_difference():
    predicted = (Entity(0, 1, "Person", probability=0.3), Entity(3, 5, "Company", probability=0.9))
    again = Relation("works_for", Entity(0, 1, "Person", probability=0.5), ACME, probability=0.1)
    assert three(scores_of(((KIM, ACME), (WORKS,)), (predicted, (again, WORKS))))[1:] == (Counts(1, 1, 1),) * 2


def test_a_reversed_relation_is_wrong_unless_its_type_is_symmetric():
    reverse = ((KIM, ACME, OSLO), (Relation("works_for", ACME, KIM), LIVES))
    assert three(scores_of(GOLD, reverse))[1:] == (Counts(1, 2, 2), Counts(1, 2, 2))
    scores = scores_of(GOLD, reverse, symmetric=["works_for"])
    assert three(scores)[1:] == (Counts(2, 2, 2), Counts(2, 2, 2))
    assert scores.with_direction is not None
    assert three(scores.with_direction)[1:] == (Counts(1, 2, 2), Counts(1, 2, 2))


def test_both_directions_of_a_symmetric_relation_are_one_relation():
    both = (WORKS, Relation("works_for", ACME, KIM))
    scores = scores_of(((KIM, ACME), both), ((KIM, ACME), both[1:]), symmetric=["works_for"])
    assert scores.relation == scores.ent_rel == Counts(1, 1, 1)
    assert scores.with_direction is not None and scores.with_direction.relation == Counts(1, 1, 2)


def test_other_types_keep_their_direction_beside_a_symmetric_one():
    reverse = ((KIM, ACME, OSLO), (WORKS, Relation("lives_in", OSLO, KIM)))
    assert three(scores_of(GOLD, reverse, symmetric=["works_for"]))[1:] == (Counts(1, 2, 2), Counts(1, 2, 2))


def test_symmetric_arguments_of_different_types_keep_their_types_in_ent_rel():
    acme_person, kim_company = Entity(3, 5, "Person"), Entity(0, 1, "Company")
    swapped_types = ((kim_company, acme_person), (Relation("works_for", acme_person, kim_company),))
    scores = scores_of(((KIM, ACME), (WORKS,)), swapped_types, symmetric=["works_for"])
    assert (scores.relation, scores.ent_rel) == (Counts(1, 1, 1), Counts(0, 1, 1))


def test_a_right_span_with_a_wrong_type_is_a_wrong_entity_and_right_for_relation_alone():
    place = Entity(3, 5, "City")
    scores = scores_of(((KIM, ACME), (WORKS,)), ((KIM, place), (Relation("works_for", KIM, place),)))
    assert three(scores) == (Counts(1, 2, 2), Counts(1, 1, 1), Counts(0, 1, 1))


def test_a_wrong_boundary_makes_entity_and_relations_wrong():
    short = Entity(4, 5, "Company")
    scores = scores_of(((KIM, ACME), (WORKS,)), ((KIM, short), (Relation("works_for", KIM, short),)))
    assert three(scores) == (Counts(1, 2, 2), Counts(0, 1, 1), Counts(0, 1, 1))


def test_a_wrong_relation_type_is_wrong():
    scores = scores_of(((KIM, ACME), (WORKS,)), ((KIM, ACME), (Relation("owns", KIM, ACME),)))
    assert three(scores)[1:] == (Counts(0, 1, 1), Counts(0, 1, 1))
    assert scores.relation_by_type == {"owns": Counts(0, 1, 0), "works_for": Counts(0, 0, 1)}


def test_a_relation_on_an_entity_that_was_not_predicted_is_not_counted_as_predicted():
    scores = scores_of(GOLD, ((KIM, OSLO), (WORKS, LIVES)))
    assert three(scores) == (Counts(2, 2, 3), Counts(1, 1, 2), Counts(1, 1, 2))
    assert scores.notices == {
        "predicted relations with an argument that is not a predicted entity (not counted as predicted)": 1
    }


def test_an_argument_that_was_predicted_with_another_type_counts_for_relation_alone():
    scores = scores_of(((KIM, ACME), (WORKS,)), ((KIM, Entity(3, 5, "City")), (WORKS,)))
    assert three(scores) == (Counts(1, 2, 2), Counts(1, 1, 1), Counts(0, 0, 1))
    assert list(scores.notices.values()) == [1]


def test_several_types_on_one_span_are_several_entities():
    club = Entity(3, 5, "Club")
    both = ((KIM, ACME, club), (WORKS, Relation("works_for", KIM, club)))
    assert three(scores_of(both, both)) == (Counts(3, 3, 3), Counts(1, 1, 1), Counts(2, 2, 2))
    one = ((KIM, ACME), (WORKS,))
    assert three(scores_of(both, one)) == (Counts(2, 2, 3), Counts(1, 1, 1), Counts(1, 1, 2))
    assert three(scores_of(one, both)) == (Counts(2, 3, 2), Counts(1, 1, 1), Counts(1, 2, 1))


def test_two_relation_types_on_one_pair_are_two_relations():
    both = ((KIM, ACME), (WORKS, Relation("owns", KIM, ACME)))
    assert scores_of(both, ((KIM, ACME), (WORKS,))).relation == Counts(1, 1, 2)


def test_empty_predictions_have_zero_everywhere():
    scores = scores_of(GOLD, ((), ()))
    assert three(scores) == (Counts(0, 0, 3), Counts(0, 0, 2), Counts(0, 0, 2))
    assert {(c.precision, c.recall, c.f1) for c in three(scores)} == {(0.0, 0.0, 0.0)}


def test_empty_gold_has_zero_everywhere():
    scores = scores_of(((), ()), GOLD)
    assert three(scores) == (Counts(0, 3, 0), Counts(0, 2, 0), Counts(0, 2, 0))
    assert {(c.precision, c.recall, c.f1) for c in three(scores)} == {(0.0, 0.0, 0.0)}


def test_nothing_to_find_and_nothing_found_is_zero_and_shown_as_a_dash():
    scores = scores_of(((), ()), ((), ()))
    assert {(c.precision, c.recall, c.f1) for c in three(scores)} == {(0.0, 0.0, 0.0)}
    assert scores_table(scores).splitlines()[2].split() == ["Entity", "-", "-", "-", "0", "0", "0"]
    assert score(Corpus(()), Corpus(())).entity == Counts(0, 0, 0)


def test_gold_relations_with_arguments_that_are_no_entities_stay_in_recall():
    unmarked = Entity(3, 5, "")
    gold = ((KIM,), (Relation("works_for", KIM, unmarked),))
    assert three(scores_of(gold, ((KIM, ACME), (WORKS,)))) == (Counts(1, 2, 1), Counts(1, 1, 1), Counts(0, 1, 1))
    assert three(scores_of(gold, gold))[1:] == (Counts(0, 0, 1), Counts(0, 0, 1))


def test_overlapping_nested_and_self_relations_stay_in_recall():
    whole, part = Entity(0, 5, "Group"), Entity(3, 4, "Company")
    gold = ((whole, part), (Relation("part_of", part, whole), Relation("same", whole, whole)))
    assert three(scores_of(gold, ((whole,), ()))) == (Counts(1, 1, 2), Counts(0, 0, 2), Counts(0, 0, 2))
    assert three(scores_of(gold, gold)) == (Counts(2, 2, 2),) * 3


def test_a_span_without_gaps_is_no_discontinuous_entity():
    gapped, filled = Entity(0, 5, "Group", fragments=((0, 1), (3, 5))), Entity(0, 5, "Group")
    assert scores_of(((gapped,), ()), ((filled,), ())).entity == Counts(0, 1, 1)
    assert scores_of(((gapped,), ()), ((gapped,), ())).entity == Counts(1, 1, 1)
    joined = Entity(0, 5, "Group", fragments=((3, 5), (0, 3)))
    assert scores_of(((joined,), ()), ((filled,), ())).entity == Counts(1, 1, 1)


def _document(**across) -> Document:
    return Document("d", (Sentence(WORDS, (KIM, ACME), (WORKS,)), Sentence(WORDS, (OSLO,))), **across)


def test_gold_across_sentences_stays_in_recall_and_in_its_group():
    title = CrossEntity(6, 10, "Title")
    lives = CrossRelation("lives_in", CrossEntity(0, 1, "Person"), CrossEntity(15, 16, "City"))
    gold = Corpus((_document(cross_entities=(title,), cross_relations=(lives,)),))
    scores = score(gold, Corpus((_document(),)))
    assert three(scores) == (Counts(3, 3, 4), Counts(1, 1, 2), Counts(1, 1, 2))
    assert scores.by_length[ACROSS].relation == scores.by_entities[ACROSS].ent_rel == Counts(0, 0, 1)
    assert three(score(gold, gold)) == (Counts(4, 4, 4), Counts(2, 2, 2), Counts(2, 2, 2))


def test_what_is_predicted_across_sentences_is_found_however_documents_are_cut():
    lives = CrossRelation("lives_in", CrossEntity(0, 1, "Person"), CrossEntity(15, 16, "City"))
    gold = Corpus((Document("a", (Sentence(WORDS),)), _document(cross_relations=(lives,))))
    offset = len(WORDS)
    moved = CrossRelation(
        "lives_in",
        CrossEntity(offset, offset + 1, "Person"),
        CrossEntity(15 + offset, 16 + offset, "City"),
    )
    predicted = Corpus((Document("one", tuple(gold.sentences), cross_relations=(moved,)),))
    assert score(gold, predicted).relation == Counts(2, 2, 2)
    assert three(score(gold, gold)) == (Counts(3, 3, 3), Counts(2, 2, 2), Counts(2, 2, 2))


def test_predicted_documents_may_come_as_a_list_of_sentences():
    gold = Corpus((_document(),))
    flat = Corpus(tuple(Document(str(i), (s,)) for i, s in enumerate(gold.sentences)))
    assert three(score(gold, flat)) == three(score(gold, gold))


def test_units_of_resampling_are_documents_or_sentences_where_there_are_none_or_one():
    lives = CrossRelation("lives_in", CrossEntity(0, 1, "Person"), CrossEntity(15, 16, "City"))
    one, two = Corpus((_document(cross_relations=(lives,)),)), Corpus((_document(), _document()))
    flat = Corpus(tuple(Document(str(i), (s,)) for i, s in enumerate(two.sentences)))
    described = [score(gold, gold).units.description for gold in (one, two, flat)]
    assert described == ["2 sentences and what lies across them", "2 documents", "4 sentences"]
    assert [len(score(gold, gold).units.counts_UN3) for gold in (one, two, flat)] == [3, 2, 4]
    assert score(one, one).relation == Counts(2, 2, 2)
    within = Corpus((_document(),))
    found = [score(within, predicted) for predicted in (within, one)]  # of the same gold: they can be paired
    assert [scores.units.description for scores in found] == ["2 sentences"] * 2
    assert found[1].relation == Counts(1, 2, 1)


def test_the_best_epoch_is_chosen_by_entities_and_by_relations_with_their_types():
    place = Entity(3, 5, "City")
    scores = scores_of(GOLD, ((KIM, place, OSLO), (Relation("works_for", KIM, place), LIVES)))
    assert (scores.entity, scores.relation, scores.ent_rel) == (Counts(2, 3, 3), Counts(2, 2, 2), Counts(1, 2, 2))
    assert scores.exact_f1_sum == pytest.approx(2 / 3 + 1 / 2)
    assert scores.f1s == pytest.approx({"entity": 2 / 3, "relation": 1.0, "ent_rel": 1 / 2})


def test_groups_of_lengths_and_entities_hold_their_ends():
    lengths = {0: "0-10", 10: "0-10", 11: "11-20", 20: "11-20", 21: "21-30", 30: "21-30", 31: "31-50", 50: "31-50"}
    assert {words: length_group(words) for words in lengths} == lengths
    assert length_group(51) == length_group(10_000) == "51+"
    assert [entities_group(n) for n in (0, 1, 8, 9, 10, 40)] == ["0", "1", "8", "9+", "9+", "9+"]


def test_groups_are_named_by_entities_and_words_of_the_gold_sentence():
    many = tuple(Entity(i, i + 1, "T") for i in range(12))
    words = tuple("w" * 12)
    scores = score(corpus((many, ()), (many[:1] * 3, ()), words=words), corpus(((), ()), ((), ()), words=words))
    assert list(scores.by_entities) == ["1", "9+"]
    assert [scores.by_entities[name].entity for name in ("1", "9+")] == [Counts(0, 0, 1), Counts(0, 0, 12)]
    assert list(scores.by_length) == ["11-20"]


def test_json_says_numbers_convention_and_notices():
    scores = scores_of(GOLD, ((KIM, OSLO), (WORKS, LIVES)), symmetric=["lives_in"])
    read = json.loads(json.dumps(scores.to_json()))
    assert read["relation"] == {"precision": 1.0, "recall": 0.5, "f1": 2 / 3, "tp": 1, "predicted": 1, "gold": 2}
    assert read["direction"] == "relations with direction, but lives_in without"
    assert read["with_direction"]["direction"] == "relations with direction (the default)"
    assert read["ent_rel_by_type"]["works_for"]["recall"] == 0.0
    assert list(read["notices"].values()) == [1]


def test_table_shows_percent_and_both_conventions():
    scores = scores_of(GOLD, ((KIM, ACME, OSLO), (WORKS,)), symmetric=["lives_in"])
    text = scores_table(scores, by_group=True)
    assert "relations with direction, but lives_in without; 1 sentence" in text
    assert "\nrelations with direction (the default); 1 sentence" in text
    line = next(line for line in text.splitlines() if line.startswith("Relation "))
    assert line.split() == ["Relation", "100.0%", "50.0%", "66.7%", "1", "1", "2"]


def test_other_words_name_the_sentence_and_the_first_difference():
    gold = Corpus((Document("d", (Sentence(WORDS), Sentence(WORDS, origin="gold.json line 7"))),))
    other = Corpus(
        (Document("d", (Sentence(WORDS), Sentence((*WORDS[:2], "at", *WORDS[3:]), origin="p.json line 2"))),)
    )
    with pytest.raises(
        DataError, match=r"sentence 2 \(gold.json line 7 and p.json line 2\) differs at word 3"
    ) as error:
        score(gold, other)
    assert "'of' in gold" in str(error.value) and "'at' in the predictions" in str(error.value)
    shorter = Corpus((Document("d", (Sentence(WORDS), Sentence(WORDS[:-1]))),))
    with pytest.raises(DataError, match="differs at word 8: it is 'Oslo' in gold and is missing in the predictions"):
        score(gold, shorter)


def test_another_number_of_sentences_names_both_numbers_and_the_remedy():
    gold = Corpus((Document("d", (Sentence(WORDS), Sentence(WORDS))),), source="gold.json")
    one = Corpus((Document("d", (Sentence(WORDS),)),), source="predicted.json")
    with pytest.raises(DataError, match=r"predicted.json has 1 sentence but gold.json has 2; .* predict the same file"):
        score(gold, one)


def test_distant_gold_whose_words_are_not_in_the_sentence_stays_in_recall(tmp_path):
    path = tmp_path / "nyt.json"
    mentions = [{"em1Text": "Ann", "em2Text": where, "label": "lives_in"} for where in ("Rome", "Paris")]
    entities = [{"text": text, "label": "X", "start": 0} for text in ("Ann", "Rome", "Paris")]
    record = {"sentText": "Ann lives in Rome", "relationMentions": mentions, "entityMentions": entities}
    path.write_text(json.dumps(record) + "\n")
    gold = read_corpus(path)
    scores = score(gold, gold.with_sentences(gold.sentences))
    assert (scores.entity.tp, scores.entity.predicted, scores.entity.gold) == (2, 2, 3)
    assert (scores.relation.tp, scores.relation.predicted, scores.relation.gold) == (1, 1, 2)
    assert (scores.ent_rel.tp, scores.ent_rel.predicted, scores.ent_rel.gold) == (1, 1, 2)
