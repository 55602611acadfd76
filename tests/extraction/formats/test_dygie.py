"""Corpora as DyGIE++ has them: documents, offsets that count their words, gold across sentences, predictions."""

from __future__ import annotations

from pathlib import Path

import pytest
from corpora import ADA, CODE, DYGIE, LONDON, changed, put

from spe_dist.errors import DataError
from spe_dist.extraction.corpora.corpus import CrossEntity, CrossRelation, Entity, Relation
from spe_dist.extraction.formats import read_corpus


def test_dygie_offsets_count_words_of_the_document_and_other_fields_are_kept(tmp_path: Path) -> None:
    (document,) = read_corpus(put(tmp_path, DYGIE)).documents
    assert document.id == "d1" and document.extra == {"clusters": [[[0, 1]]]}
    assert document.sentences[1].entities == (LONDON,)


def test_dygie_gold_across_sentences_stays_with_the_document(tmp_path: Path) -> None:
    record = changed(DYGIE, ["ner", 0], [[0, 1, "Person"], [3, 4, "Work"]])
    record["relations"] = [[[0, 1, 5, 5, "In"], [3, 4, 0, 1, "Made-By"]], []]
    (document,) = read_corpus(put(tmp_path, record)).documents
    person, work = CrossEntity(0, 2, "Person"), CrossEntity(3, 5, "Work")
    assert document.sentences[0].entities == (ADA,) and document.sentences[0].relations == ()
    assert document.cross_entities == (work,)
    assert document.cross_relations == (
        CrossRelation("In", person, CrossEntity(5, 6, "Place")),
        CrossRelation("Made-By", work, person),
    )


def test_dygie_values_behind_entries_across_sentences_are_counted_as_such(tmp_path: Path) -> None:
    record = changed(DYGIE, ["ner", 0], [[0, 1, "Person"], [3, 4, "Work", 0.5]])
    record["relations"] = [[[0, 1, 5, 5, "In", 0.5]], []]
    notices = read_corpus(put(tmp_path, record)).notices
    assert [count for reason, count in notices.items() if reason.startswith("entries across sentences with")] == [2]
    assert not [reason for reason in notices if "that are not a probability" in reason]


def test_dygie_entry_of_an_empty_sentence_is_said_to_be_there(tmp_path: Path) -> None:
    record = {"doc_key": "d", "sentences": [["a"], []], "ner": [[], [[0, 0, "T"]]], "relations": [[], []]}
    with pytest.raises(DataError, match="it stands with sentence 2, which has no words; count words"):
        read_corpus(put(tmp_path, record))


def test_dygie_argument_that_is_no_entity_has_no_type_and_is_counted(tmp_path: Path) -> None:
    corpus = read_corpus(put(tmp_path, changed(DYGIE, ["ner", 0], [[0, 1, "Person"]])))
    assert corpus.sentences[0].relations == (Relation("Made-By", Entity(3, 4, ""), ADA),)
    assert corpus.sentences[0].entities == (ADA,)
    assert [reason for reason in corpus.notices if "not entities" in reason]


def test_dygie_argument_with_several_types_takes_the_last_and_says_so(tmp_path: Path) -> None:
    record = changed(DYGIE, ["ner", 0], [[0, 1, "Writer"], [0, 1, "Person"], [3, 3, "Work"]])
    corpus = read_corpus(put(tmp_path, record))
    assert corpus.sentences[0].relations[0].tail.type == "Person"
    assert len(corpus.sentences[0].entities) == 3
    assert [reason for reason in corpus.notices if "several entity types" in reason]


def test_predictions_of_dygie_are_read_where_asked_or_alone(tmp_path: Path) -> None:
    predicted = {"predicted_ner": [[[3, 3, "Work", 7.5, 0.75]], []], "predicted_relations": [[], []]}
    path = put(tmp_path, {**DYGIE, **predicted})
    gold = read_corpus(path)
    assert len(gold.sentences[0].entities) == 2 and "predicted_ner" not in gold.documents[0].extra
    assert [count for reason, count in gold.notices.items() if "beside the gold" in reason] == [1]
    (entity,) = read_corpus(path, predictions=True).sentences[0].entities
    assert entity == CODE and entity.probability == 0.75
    alone = {key: value for key, value in {**DYGIE, **predicted}.items() if key not in ("ner", "relations")}
    assert read_corpus(put(tmp_path, alone)).sentences[0].entities == (CODE,)
