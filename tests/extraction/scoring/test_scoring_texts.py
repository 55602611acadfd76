"""Scores of what is named by its text (nyt format), and differences that do not show."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from spe_dist.errors import DataError
from spe_dist.extraction.corpora.corpus import Corpus, Document, Sentence
from spe_dist.extraction.formats import read_corpus
from spe_dist.extraction.scoring.counts import Counts
from spe_dist.extraction.scoring.matching import check_symmetric
from spe_dist.extraction.scoring.scores import score

TEXT = "Ann lives in Rome"


def nyt(folder: Path, name: str, relations: list[tuple[str, str, str]], entities: list[str] | None) -> Corpus:
    record: dict[str, Any] = {"sentText": TEXT}
    record["relationMentions"] = [{"em1Text": a, "em2Text": b, "label": label} for label, a, b in relations]
    if entities is not None:
        record["entityMentions"] = [{"text": text, "label": "X"} for text in entities]
    (folder / name).write_text(f"{json.dumps(record)}\n")
    return read_corpus(folder / name)


def test_predicted_words_that_the_sentence_does_not_hold_cost_precision(tmp_path: Path) -> None:
    gold = nyt(tmp_path, "gold", [("in", "Ann", "Rome")], ["Ann", "Rome"])
    relations = [("in", "Ann", where) for where in ("Rome", "Oslo", "Bonn")]
    found = nyt(tmp_path, "found", relations, ["Ann", "Rome", "Oslo"])
    scores = score(gold, found)
    assert scores.entity == Counts(2, 3, 2)
    assert scores.relation == scores.ent_rel == Counts(1, 2, 1)  # Bonn is no predicted entity
    assert [count for reason, count in scores.notices.items() if "not a predicted entity" in reason] == [1]


def test_the_same_text_is_right_where_no_sentence_holds_it(tmp_path: Path) -> None:
    gold = nyt(tmp_path, "gold", [("in", "Ann", "Oslo")], ["Ann", "Oslo"])
    assert score(gold, gold).relation == score(gold, gold).ent_rel == Counts(1, 1, 1)
    turned = nyt(tmp_path, "turned", [("in", "Oslo", "Ann")], ["Oslo", "Ann"])
    assert score(gold, turned).relation == Counts(0, 1, 1)
    assert score(gold, turned, ["in"]).relation == Counts(1, 1, 1)


def test_a_file_without_entity_mentions_implies_them_also_where_words_are_missing(tmp_path: Path) -> None:
    gold = nyt(tmp_path, "gold", [("in", "Ann", "Rome")], None)
    found = nyt(tmp_path, "found", [("in", "Ann", "Oslo"), ("in", "Bonn", "Oslo")], None)
    scores = score(gold, found)
    assert scores.entity == Counts(1, 3, 2) and scores.relation == Counts(0, 2, 1)


def test_words_in_different_unicode_forms_are_told_apart_in_the_message() -> None:
    gold, other = (Corpus((Document("d", (Sentence((word,)),)),)) for word in ("caf\u00e9", "cafe\u0301"))
    with pytest.raises(DataError, match=r"it is 'caf\\xe9' in gold and is 'cafe\\u0301' in the predictions"):
        score(gold, other)


@pytest.mark.parametrize(
    "field", [{"entityMentions": ["Ann"]}, {"relationMentions": [{"label": "in"}]}, {"on": 1}, [1]]
)
def test_a_field_unplaced_of_the_users_own_counts_for_nothing(tmp_path: Path, field: Any) -> None:
    record = {"tokens": TEXT.split(), "entities": [{"type": "X", "start": 0, "end": 1}], "relations": []}
    (tmp_path / "own.json").write_text(json.dumps([{**record, "unplaced": field}]))
    corpus = read_corpus(tmp_path / "own.json")
    assert score(corpus, corpus).entity == Counts(1, 1, 1)


def test_a_mention_without_a_type_is_no_entity_wherever_its_words_are(tmp_path: Path) -> None:
    mentions = [{"text": text, "label": label} for text, label in (("Ann", "X"), ("Rome", ""), ("Bob", ""))]
    record = {"sentText": TEXT, "relationMentions": [{"em1Text": "Ann", "em2Text": "Bob", "label": "knows"}]}
    (tmp_path / "gold").write_text(json.dumps({**record, "entityMentions": mentions}))
    scores = score(read_corpus(tmp_path / "gold"), read_corpus(tmp_path / "gold", predictions=True))
    assert (scores.entity, scores.relation) == (Counts(1, 1, 1), Counts(0, 0, 1))


def test_arguments_that_are_named_by_their_text_need_their_types_in_ent_rel(tmp_path: Path) -> None:
    def corpus(name: str, labels: tuple[str, str]) -> Corpus:
        record = {
            "sentText": TEXT,
            "relationMentions": [{"em1Text": "Ann", "em2Text": "Paris", "label": "in"}],
            "entityMentions": [{"text": t, "label": n} for t, n in zip(("Ann", "Paris"), labels, strict=True)],
        }
        (tmp_path / name).write_text(f"{json.dumps(record)}\n")
        return read_corpus(tmp_path / name)

    gold = corpus("gold", ("P", "L"))
    for labels, relation, ent_rel in ((("P", "L"), (1, 1, 1), (1, 1, 1)), (("X", "L"), (1, 1, 1), (0, 1, 1))):
        scores = score(gold, corpus("found", labels))
        assert (scores.relation, scores.ent_rel) == (Counts(*relation), Counts(*ent_rel))
    untyped = corpus("untyped", ("P", ""))  # in predictions no entity, so the relation does not count
    assert score(untyped, untyped).relation == Counts(0, 0, 1)
    check_symmetric(["in"], gold)
