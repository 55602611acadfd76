"""Types that say that there is nothing are no relations and no entities, in every format, and a notice names them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from corpora import put
from project import SHARED

from spe_dist.extraction.corpora.corpus import (
    Corpus,
    CrossEntity,
    CrossRelation,
    Document,
    Entity,
    Relation,
    Sentence,
)
from spe_dist.extraction.formats import WRITTEN_FORMATS, read_corpus, write_corpus
from spe_dist.extraction.formats.no_label import NO_ENTITY, NO_RELATION, means_nothing, without_no_labels

A, B = Entity(0, 1, "Person"), Entity(2, 3, "Place")


def documents(*entities: Entity, relations: tuple[Relation, ...] = ()) -> tuple[Document, ...]:
    return (Document("d", (Sentence(("a", "b", "c", "d"), (A, B, *entities), relations),)),)


@pytest.mark.parametrize(
    "name", ["no_relation", "No Relation", "NO-RELATION", "noRelation", "None", "NA", "N/A", "n.a."]
)
def test_spellings_of_nothing_mean_nothing(name: str) -> None:
    assert means_nothing(name)


@pytest.mark.parametrize("name", ["Other", "No", "N", "NAM", "Non-Person", "no relation at all to it", "", "Nonentity"])
def test_names_that_only_look_like_nothing_are_types(name: str) -> None:
    assert not means_nothing(name)


@pytest.mark.parametrize("name", WRITTEN_FORMATS)
def test_no_relation_is_none_in_every_format_and_is_named(tmp_path: Path, name: str) -> None:
    relations = (Relation("lives", A, B), Relation("no_relation", B, A), Relation("None", A, B))
    write_corpus(Corpus(documents(relations=relations)), tmp_path / "file.json", name)
    corpus = read_corpus(tmp_path / "file.json")
    assert corpus.format == name and [r.type for r in corpus.sentences[0].relations] == ["lives"]
    assert corpus.notices[NO_RELATION.format("no_relation")] == corpus.notices[NO_RELATION.format("None")] == 1


@pytest.mark.skipif(not (SHARED / "cases").is_dir(), reason="needs the cases beside the project")
def test_the_labels_of_a_classifiers_corpus_are_no_class() -> None:
    corpus = read_corpus(SHARED / "cases/annotations/no_relation.json")
    assert {relation.type for s in corpus.sentences for relation in s.relations} == {"owns"}
    assert corpus.notices == {NO_RELATION.format("no_relation"): 2 * corpus.n_sentences}


def test_an_entity_of_no_type_stays_an_argument() -> None:
    nothing = Entity(3, 4, "None")
    notices: Counter[str] = Counter()
    (document,) = without_no_labels(documents(nothing, relations=(Relation("lives", A, nothing),)), notices)
    (sentence,) = document.sentences
    assert sentence.entities == (A, B) and sentence.relations == (Relation("lives", A, Entity(3, 4, "")),)
    assert notices == {NO_ENTITY.format("None"): 1}


def test_o_is_outside_of_all_entities_unless_types_are_letters_or_relations_take_it() -> None:
    outside, notices = Entity(3, 4, "O"), Counter[str]()
    (document,) = without_no_labels(documents(outside), notices)
    assert document.sentences[0].entities == (A, B) and notices == {NO_ENTITY.format("O"): 1}
    for kept in (
        documents(outside, Entity(1, 2, "P")),
        documents(outside, relations=(Relation("at", A, outside), Relation("O", A, B))),
    ):
        notices.clear()
        (document,) = without_no_labels(kept, notices)
        assert outside in document.sentences[0].entities
        assert any("kept as a type" in notice for notice in notices)
        assert [relation.type for relation in document.sentences[0].relations] in ([], ["at"])


def test_a_system_that_predicts_o_knows_a_type_of_this_name() -> None:
    outside, notices = Entity(3, 4, "O"), Counter[str]()
    assert without_no_labels(documents(outside), notices, predictions=True) == documents(outside) and not notices


def test_nothing_across_sentences_and_without_a_place_is_nothing_too(tmp_path: Path) -> None:
    head, tail, none = CrossEntity(0, 1, "P"), CrossEntity(4, 6, "N/A"), CrossRelation
    given = Document("d", documents()[0].sentences * 2, (tail,), (none("NA", head, tail), none("at", head, tail)))
    notices: Counter[str] = Counter()
    (document,) = without_no_labels([given], notices)
    assert not document.cross_entities
    assert document.cross_relations == (CrossRelation("at", head, CrossEntity(4, 6, "")),)
    assert sorted(notices.values()) == [1, 1]
    missing = {"em1Text": "Ada", "em2Text": "nobody", "label": "NA"}
    mention = {"text": "nobody", "label": "none"}
    record = {"sentText": "Ada wrote", "entityMentions": [mention], "relationMentions": [missing]}
    assert not read_corpus(put(tmp_path, record)).sentences[0].unplaced


def test_annotations_by_character_lose_nothing_else_on_their_way_through(tmp_path: Path) -> None:
    spans = [(0, 3, "Person"), (4, 7, "None"), (8, 12, "Place"), (13, 17, "NA")]
    relations = [("no_relation", 0, 2), ("saw", 0, 1), ("at", 0, 2)]
    record = {
        "text": "Ada saw York once",
        "entities": [{"id": str(i), "start": a, "end": b, "type": name} for i, (a, b, name) in enumerate(spans)],
        "relations": [{"type": name, "head": str(head), "tail": str(tail)} for name, head, tail in relations],
    }
    corpus = read_corpus(put(tmp_path, record))
    (document,) = corpus.documents
    assert document.annotated is not None
    assert [span.type for span in document.annotated.spans] == ["Person", "None", "Place"]  # one is an argument
    assert [(r.type, r.head, r.tail) for r in document.annotated.relations] == [("saw", 0, 1), ("at", 0, 2)]
    assert [entity.type for entity in document.sentences[0].entities] == ["Person", "Place"]
    assert sorted(corpus.notices.values()) == [1, 1, 1]
