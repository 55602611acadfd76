"""Counts of corpora: what overlaps, repeats or cannot be represented; known corpora and their published counts."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from corpora import WORD_FORMATS, put
from project import SHARED

from spe_dist.extraction.corpora.corpus import Corpus, CrossEntity, CrossRelation, Document, Entity, Relation, Sentence
from spe_dist.extraction.corpora.known import ACE05, CONLL04, NYT, SCIERC, check, recognise, split_names
from spe_dist.extraction.corpora.statistics import (
    ENTITY_COUNTS,
    RELATION_COUNTS,
    SIZES,
    CorpusStatistics,
    count_corpus,
    entity_counts,
    relation_counts,
)
from spe_dist.extraction.formats import read_corpus, write_corpus
from spe_dist.extraction.scoring.scores import score

DATA = SHARED / "data/extraction"
needs_shared = pytest.mark.skipif(not DATA.exists(), reason="needs ../shared/data/extraction")


def nonzero(counts: Counter[str]) -> dict[str, int]:
    return {name: int(count) for name, count in counts.items() if count}


def sentence(entities: list[Entity], relations: list[Relation]) -> Sentence:
    return Sentence(tuple("abcdefghij"), tuple(entities), tuple(relations))


def test_flat_entities_count_as_nothing_special() -> None:
    assert nonzero(entity_counts([Entity(0, 2, "X"), Entity(2, 3, "X"), Entity(4, 5, "Y")])) == {}


def test_nested_crossing_and_same_span_pairs_are_told_apart() -> None:
    outer, inner, crossing, twin = Entity(0, 4, "X"), Entity(1, 2, "X"), Entity(3, 6, "Y"), Entity(3, 6, "Z")
    assert nonzero(entity_counts([outer, inner, crossing, twin])) == {
        "overlapping": 4,
        "overlapping_sentences": 1,
        "nested_pairs": 1,
        "crossing_pairs": 2,
        "same_span_pairs": 1,
    }


def test_duplicates_are_no_overlap() -> None:
    assert nonzero(entity_counts([Entity(0, 2, "X"), Entity(0, 2, "X")])) == {"duplicate_entities": 1}


def test_an_entity_in_the_gap_of_a_discontinuous_one_does_not_overlap_with_it() -> None:
    parted, between = Entity(0, 5, "X", fragments=((0, 1), (4, 5))), Entity(2, 3, "X")
    assert nonzero(entity_counts([parted, between])) == {"discontinuous": 1}


def test_relations_that_a_pair_classifier_cannot_give_are_counted_by_reason() -> None:
    a, b, within = Entity(0, 3, "X"), Entity(4, 5, "Y"), Entity(1, 2, "X")
    relations = [
        Relation("R", a, b),
        Relation("R", a, b),
        Relation("R", b, a),
        Relation("S", a, b),
        Relation("R", a, a),
        Relation("R", a, within),
        Relation("R", a, Entity(8, 9, "")),
    ]
    assert nonzero(relation_counts(sentence([a, b, within], relations))) == {
        "duplicate_relations": 1,
        "opposite_directions": 1,
        "further_on_pair": 2,
        "self_relations": 1,
        "overlapping_arguments": 1,
        "untyped_arguments": 1,
        "contested_arguments": 7,
    }


def test_gold_across_sentences_is_counted_and_unreachable() -> None:
    cross = CrossEntity(1, 3, "X")
    document = Document("d", (Sentence(("a", "b")), Sentence(("c",))), (cross,), (CrossRelation("R", cross, cross),))
    statistics = count_corpus(Corpus((document,), format="dygie"))
    counts = statistics.counts
    assert (counts["entities"], counts["cross_entities"]) == (1, 1)
    assert (counts["relations"], counts["cross_relations"]) == (1, 1)
    assert statistics.ceiling.entity.recall == statistics.ceiling.relation.recall == 0
    assert statistics.entity_types == {"X": 1} and statistics.relation_types == {"R": 1}


def test_marks_whose_words_are_not_in_the_sentence_are_counted_as_scores_take_them(tmp_path: Path) -> None:
    texts = {"Ada": "P", "Zed": "P", "Zed ": "P", "Bob": ""}  # Zed twice; Bob is an argument and no entity
    relations = [("Ada", "Zed", "knows"), ("Ada", "Bob", "saw")]
    record = {
        "sentText": "Ada wrote code",
        "entityMentions": [{"text": text, "label": label} for text, label in texts.items()],
        "relationMentions": [{"em1Text": head, "em2Text": tail, "label": label} for head, tail, label in relations],
    }
    corpus = read_corpus(put(tmp_path, record))
    statistics, counts = count_corpus(corpus), count_corpus(corpus).counts
    assert statistics.entity_types == {"P": 3} and statistics.relation_types == {"knows": 1, "saw": 1}
    assert (counts["entities"], counts["unplaced_entities"], counts["duplicate_entities"]) == (3, 2, 1)
    assert (counts["relations"], counts["unplaced_relations"], counts["untyped_arguments"]) == (2, 2, 1)
    assert (statistics.ceiling.entity.n_lost, statistics.ceiling.relation.n_lost) == (1, 2)
    scores = score(corpus, corpus)
    assert (scores.entity.gold, scores.relation.gold) == (2, 2)  # each mark once
    assert all("missed" not in reason for reason in corpus.notices)  # here all of the entities are right
    write_corpus(corpus, tmp_path / "spert.json", "spert")
    assert count_corpus(read_corpus(tmp_path / "spert.json")).counts == counts


def test_json_holds_every_count_also_where_it_is_zero() -> None:
    report = count_corpus(Corpus((Document("d", (Sentence(("a",)),)),), source="f", format="spert")).to_json()
    assert list(report["counts"]) == [*SIZES, *ENTITY_COUNTS, *RELATION_COUNTS]
    assert report["counts"]["words"] == 1 and report["counts"]["self_relations"] == 0


@needs_shared
def test_scierc_has_114_training_entities_that_overlap_in_51_sentences() -> None:
    counts = count_corpus(read_corpus(DATA / "scierc/train.json")).counts
    assert (counts["entities"], counts["overlapping"], counts["overlapping_sentences"]) == (5598, 114, 51)
    assert (counts["nested_pairs"], counts["crossing_pairs"], counts["same_span_pairs"]) == (61, 0, 0)
    assert counts["duplicate_relations"] == 4


@needs_shared
@pytest.mark.parametrize(("folder", "known"), [("scierc", SCIERC), ("conll04", CONLL04)])
def test_known_corpora_agree_with_their_published_counts(folder: str, known: object) -> None:
    files = [count_corpus(read_corpus(DATA / folder / f"{split}.json")) for split in ("train", "dev", "test")]
    assert recognise(files) is known
    assert [check(statistics, recognise(files)).warnings for statistics in files] == [(), (), ()]  # type: ignore[arg-type]
    assert all("relations" in check(statistics, recognise(files)).agreed for statistics in files)  # type: ignore[arg-type]


@needs_shared
@pytest.mark.parametrize("name", WORD_FORMATS)
def test_a_corpus_is_recognised_in_every_format(tmp_path: Path, name: str) -> None:
    path = tmp_path / "scierc_dev.json"
    write_corpus(read_corpus(DATA / "scierc/dev.json"), path, name)
    statistics = count_corpus(read_corpus(path))
    assert recognise([statistics]) is SCIERC
    result = check(statistics, SCIERC)
    assert result.warnings == () and set(result.agreed) == {"documents", "sentences", "entities", "relations"}


@needs_shared
def test_a_part_that_lost_a_sentence_or_has_another_name_is_warned_of() -> None:
    corpus = read_corpus(DATA / "conll04/dev.json")
    fewer = count_corpus(replace(corpus, documents=corpus.documents[1:]))
    (first, *_) = check(fewer, CONLL04).warnings
    assert "dev.json has 230 sentences, but dev of CoNLL04" in first and "has 231" in first
    misnamed = replace(count_corpus(corpus), source="conll04_test.json")
    assert len(check(misnamed, CONLL04).warnings) == 3
    unnamed = replace(count_corpus(corpus), source="part.json")
    assert check(unnamed, CONLL04).warnings == ()


def known_statistics(source: str, relation: str, entity: str, **counts: int) -> CorpusStatistics:
    return CorpusStatistics(
        source, "nyt", Counter(counts), Counter({entity: 1}), Counter({relation: 1}), has_documents=True
    )


def test_ace05_is_known_by_its_labels_and_checked_by_documents() -> None:
    right = known_statistics("ace05/train.json", "PART-WHOLE", "GPE", documents=351)
    assert recognise([right]) is ACE05 and check(right, ACE05).agreed == ("documents",)
    wrong = known_statistics("ace05/test.json", "Part_Whole", "GPE", documents=81)
    assert recognise([wrong]) is ACE05
    assert "has 81 documents, but test of ACE05" in check(wrong, ACE05).warnings[0]


def test_every_released_version_of_nyt_is_accepted_and_others_are_warned_of() -> None:
    for split, sentences in (("train", 235_982), ("train", 56_195), ("train", 56_196), ("dev", 4_999), ("test", 395)):
        statistics = known_statistics(
            f"{split}.json", "/people/person/nationality", "PERSON", sentences=sentences, documents=1
        )
        assert recognise([statistics]) is NYT and check(statistics, NYT).agreed == ("sentences",)
    statistics = known_statistics("train.json", "/people/person/nationality", "PERSON", sentences=9)
    assert len(check(statistics, NYT).warnings) == 2


def test_labels_that_no_corpus_has_are_not_recognised() -> None:
    assert recognise([known_statistics("train.json", "Likes", "PER")]) is None


def test_split_names_are_words_of_the_file_name() -> None:
    assert split_names("data/conll04_train_dev.json") == ("train", "dev")
    assert split_names("latest.json") == ()
    assert split_names("x/valid.jsonl.gz") == ("dev",)


def test_parts_that_are_joined_in_one_file_are_held_against_the_sum() -> None:
    statistics = CorpusStatistics(
        "conll04_train_dev.json", "spert", Counter(sentences=1153, entities=4270, relations=1)
    )
    assert check(statistics, CONLL04).agreed == ("sentences", "entities")
    assert "1,626" in check(statistics, CONLL04).warnings[0]
