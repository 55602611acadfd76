"""DocRED: entities of several mentions, whose relations hold between mentions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from corpora import DOCRED, changed, put
from project import SHARED

from spe_dist.errors import DataError
from spe_dist.extraction.annotations.settings import AnnotationSettings
from spe_dist.extraction.corpora.corpus import CrossEntity, CrossRelation, Entity, Relation
from spe_dist.extraction.formats import read_corpus, write_corpus, written_format

CASES = SHARED / "cases" / "annotations"
ADA, ACME, AGAIN = Entity(0, 1, "PER"), Entity(2, 3, "ORG"), Entity(4, 5, "ORG")
FIRM, LONDON = Entity(0, 2, "ORG"), Entity(4, 5, "LOC")


@pytest.mark.skipif(not CASES.is_dir(), reason="needs the cases beside the project")
def test_the_case_has_four_mentions_and_three_relations_of_which_one_crosses() -> None:
    corpus = read_corpus(CASES / "docred.json")
    (document,) = corpus.documents
    assert [len(sentence.entities) for sentence in document.sentences] == [2, 2]
    assert [[relation.type for relation in s.relations] for s in document.sentences] == [["P127"], ["P159"]]
    assert [relation.type for relation in document.cross_relations] == ["P937"]
    assert any("share no sentence" in reason for reason in corpus.notices)


def test_relations_hold_between_all_pairs_of_mentions_in_a_sentence_or_the_nearest(tmp_path: Path) -> None:
    path = put(tmp_path, DOCRED)
    corpus = read_corpus(path)
    (document,) = corpus.documents
    first, second = document.sentences
    assert (corpus.format, document.id, document.extra) == ("docred", "Acme", {"index": 7})
    assert first.entities == (ADA, ACME, AGAIN) and second.entities == (FIRM, LONDON)
    assert first.relations == (Relation("owns", ADA, ACME), Relation("owns", ADA, AGAIN))
    assert second.relations == (Relation("in", FIRM, LONDON),)
    home = CrossRelation("home", CrossEntity(11, 12, "LOC"), CrossEntity(0, 1, "PER"))
    assert document.cross_relations == (home,)
    assert corpus.notices["sentences without words"] == 1
    nearest = read_corpus(path, settings=AnnotationSettings(concept_pairs="nearest"))
    assert nearest.sentences[0].relations == (Relation("owns", ADA, ACME),)
    assert nearest.documents[0].cross_relations == (home,)


def test_of_the_sentences_with_both_entities_the_evidence_decides_where_it_names_one(tmp_path: Path) -> None:
    both = {"name": "Ada", "pos": [0, 1], "sent_id": 2, "type": "PER"}
    record = changed(DOCRED, ["vertexSet", 0], [*DOCRED["vertexSet"][0], both])  # type: ignore[index,misc]
    for evidence, counts in (([2], [0, 1]), ([0], [2, 0]), ([1], [2, 1]), ([], [2, 1])):
        label = {"h": 0, "t": 1, "r": "owns", "evidence": evidence}
        corpus = read_corpus(put(tmp_path, changed(record, ["labels"], [label])))
        assert [len(sentence.relations) for sentence in corpus.sentences] == counts


def test_documents_without_labels_and_entities_without_mentions_are_counted(tmp_path: Path) -> None:
    record = changed(DOCRED, ["vertexSet", 2], [])
    corpus = read_corpus(put(tmp_path, record, changed(DOCRED, ["labels"], KeyError)))
    assert [len(document.cross_relations) for document in corpus.documents] == [0, 0]
    assert [len(sentence.relations) for sentence in corpus.sentences] == [2, 0, 0, 0]
    reasons = " ".join(corpus.notices)
    assert "read as without relations" in reasons and "have no mention each" in reasons
    other = read_corpus(put(tmp_path, changed(DOCRED, ["vertexSet", 0, 0, "name"], "Bob")))
    assert any("not what stands at their words" in reason for reason in other.notices)


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (["vertexSet", 0, 0, "sent_id"], 3, "vertexSet[0][0].sent_id is 3, but the document has 3 sentences"),
        (["vertexSet", 0, 0, "pos"], [0, 8], "vertexSet[0][0].pos is [0, 8], but its sentence has 7 words"),
        (["vertexSet", 0, 0, "pos"], [1, 1], "its sentence has 7 words"),
        (["vertexSet", 0, 0, "pos"], [1], "its sentence has 7 words"),
        (["vertexSet", 0, 0, "type"], "", "a type needs a name"),
        (["labels", 1, "h"], 3, "labels[1].h is 3, but the document has 3 entities"),
        (["labels", 1, "r"], KeyError, "no field 'r'"),
        (["sents", 0], "Ada", "a list of words is expected"),
    ],
)
def test_faults_name_line_field_value_and_remedy(
    tmp_path: Path, keys: list[str | int], value: Any, message: str
) -> None:
    path = put(tmp_path, DOCRED, changed(DOCRED, keys, value))
    with pytest.raises(DataError) as error:
        read_corpus(path)
    assert message in str(error.value) and f"{path}, line 2" in str(error.value) and "; " in str(error.value)


def test_predictions_on_docred_keep_its_documents(tmp_path: Path) -> None:
    corpus = read_corpus(put(tmp_path, DOCRED))
    assert write_corpus(corpus, tmp_path / "out", written_format("docred")) == {}
    again = read_corpus(tmp_path / "out")
    assert again.documents[0].id == "Acme" and again.documents[0].cross_relations == corpus.documents[0].cross_relations
    assert [(s.words, s.relations) for s in again.sentences] == [(s.words, s.relations) for s in corpus.sentences]
