"""Prodigy: its tokens stay words, answers decide, and relations name tokens or spans."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from annotation_tools import ENTITIES, PRODIGY, RELATIONS, TEXT, TOKENS, entities_of, prodigy_relation, relations_of
from corpora import changed, put

from spe_dist.errors import DataError
from spe_dist.extraction.formats import read_corpus


def test_own_tokens_stay_words(tmp_path: Path) -> None:
    letters = [{"start": i, "end": i + 1, "id": i} for i in range(len(TEXT))]
    record = {"text": TEXT, "tokens": letters, "spans": [{"start": 21, "end": 25, "label": "Work"}]}
    corpus = read_corpus(put(tmp_path, record))
    assert ["".join(sentence.words) for sentence in corpus.sentences] == ["🙂AdaLovelacewrotecode.", "Itran."]
    assert entities_of(corpus) == [("c o d e", "Work")]


def test_tokens_are_found_where_a_task_has_none(tmp_path: Path) -> None:
    bare = {"text": "Ada wrote.", "spans": [{"start": 0, "end": 3, "label": "Person"}], "answer": "accept"}
    assert entities_of(read_corpus(put(tmp_path, bare))) == [("Ada", "Person")]
    corpus = read_corpus(put(tmp_path, bare, PRODIGY))
    assert [notice for notice in corpus.notices if "tasks without tokens" in notice]
    assert len(corpus.sentences) == 3


def test_only_accepted_tasks_are_read_and_others_counted(tmp_path: Path) -> None:
    bare = {"text": "It ran.", "answer": "accept", "_input_hash": 5}
    answers = [{**PRODIGY, "answer": answer} for answer in ("reject", "ignore", "reject")]
    corpus = read_corpus(put(tmp_path, *answers, bare, changed(PRODIGY, ["answer"], KeyError)))
    assert corpus.format == "prodigy" and [len(document.sentences) for document in corpus.documents] == [1, 2]
    assert corpus.notices["tasks with the answer 'reject', left out"] == 2
    assert corpus.notices["tasks with the answer 'ignore', left out"] == 1


def test_a_text_of_several_tasks_is_counted(tmp_path: Path) -> None:
    corpus = read_corpus(put(tmp_path, PRODIGY, {**PRODIGY, "_session_id": "x"}))
    [(notice, count)] = corpus.notices.items()
    assert notice.startswith("tasks whose text stood in an earlier task") and count == 1
    assert len(corpus.documents) == 2


def test_relations_name_spans_by_their_last_token_or_any_other(tmp_path: Path) -> None:
    relations = [prodigy_relation(head, 4, "wrote") for head in (2, 1)]
    corpus = read_corpus(put(tmp_path, {**PRODIGY, "relations": relations}))
    assert relations_of(corpus) == [RELATIONS[0]] * 2 and not corpus.notices


def test_an_argument_that_is_no_span_is_kept_without_a_type(tmp_path: Path) -> None:
    token = {"start": TOKENS[3][0], "end": TOKENS[3][1], "label": None}
    relations = [prodigy_relation(3, 4, "of"), prodigy_relation(4, 3, "is", child_span=token)]
    corpus = read_corpus(put(tmp_path, {**PRODIGY, "relations": relations}))
    assert entities_of(corpus) == ENTITIES
    assert relations_of(corpus) == [("of", "wrote", "code"), ("is", "code", "wrote")]
    assert corpus.sentences[0].relations[0].head.type == ""


def test_a_span_without_a_label_is_counted(tmp_path: Path) -> None:
    corpus = read_corpus(put(tmp_path, changed(PRODIGY, ["spans", 2, "label"], KeyError)))
    assert entities_of(corpus) == ENTITIES[:2]
    assert [notice.split(" (")[0] for notice in corpus.notices] == ["spans without a label, left out"]


def test_the_users_fields_are_kept_but_not_those_of_prodigy_itself(tmp_path: Path) -> None:
    [document] = read_corpus(put(tmp_path, {**PRODIGY, "meta": {"source": "x"}, "_view_id": "ner_manual"})).documents
    assert document.extra == {"meta": {"source": "x"}}


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (["answer"], "yes", r"line 1: answer is \"yes\", but an answer is one of accept, reject, ignore"),
        (["relations", 1, "head"], 99, r"relations\[1\].head is 99, but the task has no token of this number"),
        (["relations", 0, "label"], "", r"relations\[0\].label is \"\", but a type needs a name"),
        (["spans", 0, "start"], 1.5, r"spans\[0\].start is 1.5, but a whole number"),
        (["tokens", 1, "start"], 0, r"line 1: tokens has \[0, 5\], but they must be in order"),
    ],
)
def test_damaged_tasks_are_refused_with_their_place(
    tmp_path: Path, keys: list[str | int], value: Any, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        read_corpus(put(tmp_path, changed(PRODIGY, keys, value)))
