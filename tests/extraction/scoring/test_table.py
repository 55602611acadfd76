"""Scores as text: "%" with figures, words where nothing is found, lines that fit a terminal."""

from __future__ import annotations

from dataclasses import replace

import pytest

from spe_dist.extraction.corpora.corpus import Corpus, Document, Entity, Relation, Sentence
from spe_dist.extraction.corpora.known import NYT
from spe_dist.extraction.scoring.scores import Scores, score
from spe_dist.extraction.scoring.significance import compare, confidence_intervals
from spe_dist.extraction.scoring.table import comparison_table, f1_line, percent, percent_range, points, scores_table

LONGEST_NYT_TYPE = "/business/company_shareholder/major_shareholder_of"
ANN, ROME, ACME = Entity(0, 1, "PERSON"), Entity(3, 4, "LOCATION"), Entity(5, 6, "ORGANIZATION")
WORDS = tuple("Ann lives in Rome with Acme".split())
GOLD = Sentence(WORDS, (ANN, ROME, ACME), (Relation("lives_in", ANN, ROME), Relation(LONGEST_NYT_TYPE, ANN, ACME)))


def scored(predicted: Sentence, gold: Sentence = GOLD, sentences: int = 1) -> Scores:
    one, other = (Corpus(tuple(Document(str(i), (s,)) for i in range(sentences))) for s in (gold, predicted))
    return score(one, other)


def test_fractions_are_shown_with_a_per_cent_sign_and_differences_in_points() -> None:
    assert (percent(0.6412), percent(0.0, is_empty=True)) == ("64.1%", "-")
    assert percent_range(0.6, 0.68) == "60.0 - 68.0%"
    assert points(0.019, -0.003, 0.04) == ("+1.9", "-0.3 to +4.0")


def test_the_line_of_a_log_names_the_three_scores() -> None:
    assert f1_line(scored(GOLD).measured_f1s) == "F1: Entity 100.0%, Relation 100.0%, Ent+Rel 100.0%"
    of_entities = replace(GOLD, relations=())
    assert f1_line(scored(of_entities, of_entities).measured_f1s) == "F1: Entity 100.0%"


def test_a_model_that_finds_nothing_gets_sentences_and_no_rows_of_zeros() -> None:
    text = scores_table(scored(Sentence(WORDS)))
    assert "Entity: nothing is predicted; the gold has 3 entities\n" in text
    assert "Relation and Ent+Rel: nothing is predicted; the gold has 2 relations\n" in text + "\n"
    assert "by type" not in text and "lives_in" not in text
    one = scores_table(scored(Sentence(WORDS), Sentence(WORDS, (ANN,))))
    assert "the gold has 1 entity" in one and "Relation:" not in one


def test_only_the_metric_without_a_right_prediction_loses_its_table() -> None:
    wrong = Relation("lives_in", ROME, ANN)
    text = scores_table(scored(Sentence(WORDS, (ANN, ROME), (wrong,))))
    assert "Relation and Ent+Rel: 1 relation predicted, none of them right; the gold has 2 relations" in text
    assert "Entity by type" in text and "Relation by type" not in text
    unwanted = scored(Sentence(WORDS, (ANN, ROME)), Sentence(WORDS))
    assert "Entity: 2 entities predicted, none of them right; the gold has none" in scores_table(unwanted)


@pytest.mark.parametrize("sentences", [1, 30_000])
def test_tables_of_long_type_names_fit_120_columns(sentences: int) -> None:
    assert LONGEST_NYT_TYPE.replace("_", "").replace("/", "") in NYT.relation_types
    scores = scored(GOLD, sentences=sentences)
    intervals, compared = confidence_intervals(scores.units, 5), compare(scores.units, scores.units, 5, 5)
    longest = scores_table(scores, by_group=True, intervals=intervals), comparison_table(compared)
    assert max(len(line) for text in longest for line in text.splitlines()) <= 120
    totals = scores_table(scores, by_type=False, intervals=intervals), comparison_table(compared, by_type=False)
    assert max(len(line) for text in totals for line in text.splitlines()) <= 80


def test_types_that_neither_system_finds_have_no_table_in_a_comparison() -> None:
    nothing = scored(Sentence(WORDS))
    assert "by type" not in comparison_table(compare(nothing.units, nothing.units, 5, 5))
    assert "Relation by type" in comparison_table(compare(nothing.units, scored(GOLD).units, 5, 5))
