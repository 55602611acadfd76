"""Corpora as other tools write them: what differs from the plain form is read, refused or counted, never lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from spe_dist.errors import DataError
from spe_dist.extraction.corpora.corpus import Corpus, Document, Entity, Relation, Sentence
from spe_dist.extraction.formats import WRITTEN_FORMATS, read_corpus, write_corpus
from spe_dist.extraction.formats.no_label import NO_RELATION

WORDS = ["Ada", "wrote", "code"]
SPERT = {
    "tokens": WORDS,
    "entities": [{"type": "Person", "start": 0, "end": 1}, {"type": "Work", "start": 2, "end": 3}],
    "relations": [{"type": "Made", "head": 0, "tail": 1}],
}
DYGIE = {
    "doc_key": "d",
    "sentences": [WORDS],
    "ner": [[[0, 0, "Person"], [2, 2, "Work"]]],
    "relations": [[[0, 0, 2, 2, "Made"]]],
}
PSPE = {
    "sentText": "Ada wrote code",
    "entityMentions": [
        {"emId": 1, "text": "Ada", "offset": [0, 1], "label": "Person"},
        {"emId": 2, "text": "code", "offset": [2, 3], "label": "Work"},
    ],
    "relationMentions": [{"em1Id": 1, "em2Id": 2, "label": "Made"}],
}
NYT = {
    "sentText": "Ada wrote code",
    "entityMentions": [{"text": "Ada", "label": "Person"}, {"text": "code", "label": "Work"}],
    "relationMentions": [{"em1Text": "Ada", "em2Text": "code", "label": "Made"}],
}


def read(folder: Path, *records: Any, **options: Any) -> Corpus:
    path = folder / "file.json"
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records), encoding="utf-8")
    return read_corpus(path, **options)


def fault(folder: Path, *records: Any, **options: Any) -> str:
    with pytest.raises(DataError) as error:
        read(folder, *records, **options)
    return str(error.value)


def test_objects_over_several_lines_are_read_one_behind_another(tmp_path: Path) -> None:
    path = tmp_path / "pretty.json"
    path.write_text("\n".join(json.dumps(record, indent=2) for record in (SPERT, {**SPERT, "tokens": [*WORDS, "."]})))
    assert [len(sentence.words) for sentence in read_corpus(path).sentences] == [3, 4]
    path.write_text(f"{json.dumps(SPERT, indent=2)}\n{json.dumps(SPERT, indent=2)[:-9]}")
    with pytest.raises(DataError, match=r"pretty\.json, item 2 \(line \d+\): damaged JSON"):
        read_corpus(path)


@pytest.mark.parametrize("indent", [None, 1])
def test_a_fault_in_a_list_names_the_line_where_the_item_begins(tmp_path: Path, indent: int | None) -> None:
    path = tmp_path / "list.json"
    text = json.dumps([SPERT, {**SPERT, "tokens": 3}], indent=indent)
    line = 1 if indent is None else text.split("\n").index(" {", 2) + 1
    path.write_text(text)
    with pytest.raises(DataError, match=rf"list\.json, line {line}, item 2: tokens is 3"):
        read_corpus(path)


def test_utf16_without_a_mark_is_named_as_a_possibility(tmp_path: Path) -> None:
    (tmp_path / "file.json").write_bytes(json.dumps(SPERT).encode("utf-16-le"))
    with pytest.raises(DataError, match=r"file\.json.* UTF-16; give text in UTF-8"):
        read_corpus(tmp_path / "file.json")


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({**SPERT, "orig_id": {"a": 1}}, 'orig_id is {"a": 1}, but the id of a document is a string or a number'),
        ({**DYGIE, "doc_key": True}, "doc_key is true"),
        ({**PSPE, "articleId": ["a"]}, 'articleId is ["a"]'),
        ({**PSPE, "relationMentions": [{"em1Id": True, "em2Id": 2, "label": "Made"}]}, "relationMentions[0].em1Id is"),
        ({**SPERT, "entities": [{"type": " ", "start": 0, "end": 1}]}, "entities[0].type is"),
        ({**SPERT, "entities": [{"type": "P", "start": 0.0, "end": 1}]}, "whole number is expected, not a decimal"),
        ({**NYT, "relationMentions": [{**NYT["relationMentions"][0], "is_noise": "true"}]}, "is_noise is"),
    ],
)
def test_values_of_another_kind_are_refused(tmp_path: Path, record: Any, message: str) -> None:
    assert message in fault(tmp_path, record) and "line 1" in fault(tmp_path, record)


def test_na_and_none_are_no_relations_of_distant_supervision(tmp_path: Path) -> None:
    mentions = [{**NYT["relationMentions"][0], "label": label} for label in ("None", "NA", "Made")]
    corpus = read(tmp_path, {**NYT, "relationMentions": mentions})
    assert [relation.type for relation in corpus.sentences[0].relations] == ["Made"]
    assert corpus.notices == {NO_RELATION.format("None"): 1, NO_RELATION.format("NA"): 1}


def test_a_relation_type_that_means_none_elsewhere_is_counted_as_lost(tmp_path: Path) -> None:
    head, tail = Entity(0, 1, "P"), Entity(2, 3, "W")
    corpus = Corpus((Document("d", (Sentence(tuple(WORDS), (head, tail), (Relation("NA", head, tail),)),)),))
    for name in WRITTEN_FORMATS:
        losses = write_corpus(corpus, tmp_path / name, name)
        assert losses["relations of the type 'NA', which read back as none"] == 1
        assert not read_corpus(tmp_path / name).sentences[0].relations


def test_unicode_forms_of_one_text_are_one_text(tmp_path: Path) -> None:
    mention = {"emId": "1", "offset": [0, 1], "text": "Cafe\u0301", "label": "Place"}
    corpus = read(tmp_path, {"sentText": "Caf\u00e9 opens", "entityMentions": [mention], "relationMentions": []})
    assert corpus.sentences[0].entities == (Entity(0, 1, "Place"),) and not corpus.notices


@pytest.mark.parametrize(
    "record", [{**SPERT, "tokens": ["Ada", "", "code"]}, {**DYGIE, "sentences": [["Ada", "\t", "code"]]}]
)
def test_blank_words_are_counted(tmp_path: Path, record: Any) -> None:
    corpus = read(tmp_path, record)
    assert len(corpus.sentences[0].words) == 3
    assert corpus.notices == {"words that are empty or white space (the encoder reads them as unknown ones)": 1}


def test_documents_with_and_without_predictions_are_not_mixed(tmp_path: Path) -> None:
    predicted = {**DYGIE, "predicted_ner": [[]], "predicted_relations": [[]]}
    told = fault(tmp_path, predicted, DYGIE, predictions=True)
    assert "line 2 is read from 'ner' and 'relations', but" in told and "would be mixed" in told
    alone = {name: value for name, value in predicted.items() if name != "ner"}
    assert "would be mixed" in fault(tmp_path, DYGIE, alone)


def test_predicted_relations_of_given_entities_are_read_as_predictions(tmp_path: Path) -> None:
    record = {**DYGIE, "predicted_relations": [[[2, 2, 0, 0, "Made"]]]}
    corpus = read(tmp_path, record, predictions=True)
    assert [relation.head for relation in corpus.sentences[0].relations] == [Entity(2, 3, "Work")]
    assert [count for reason, count in corpus.notices.items() if "entities of 'ner' are read" in reason] == [1]


def test_values_behind_a_type_are_a_probability_or_counted(tmp_path: Path) -> None:
    for values, probability, counted in (([7.5, 0.5], 0.5, 0), ([0.5], 0.5, 0), ([7.5], None, 1), (["T1"], None, 1)):
        corpus = read(tmp_path, {**DYGIE, "ner": [[[0, 0, "Person", *values], [2, 2, "Work"]]]})
        assert corpus.sentences[0].entities[0].probability == probability
        assert sum(corpus.notices.values()) == counted
