"""The plain form, read and written."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from annotation_tools import ENTITIES, RELATIONS, TEXT, entities_of, relations_of
from corpora import EXAMPLES, changed, put

from spe_dist.errors import DataError
from spe_dist.extraction.corpora.corpus import Entity, Relation
from spe_dist.extraction.formats import read_corpus, write_corpus

PLAIN: dict[str, Any] = {
    "id": "d1",
    "text": TEXT,
    "entities": [
        {"start": 2, "end": 14, "type": "Person"},
        {"start": 21, "end": 25, "type": "Work"},
        {"start": 27, "end": 29, "type": "Work"},
    ],
    "relations": [{"head": 0, "tail": 1, "type": "wrote"}, {"head": 1, "tail": 0, "type": "made by"}],
}
OTHER_SPELLINGS = {
    "text": TEXT,
    "entities": [
        [2, 14, "Person"],
        {"start": 21, "end": 25, "label": "Work", "id": "w"},
        {"pieces": [[27, 29]], "type": "Work", "id": 5},
    ],
    "relations": [{"head": 0, "tail": "w", "label": "wrote"}, {"head": "w", "tail": 0, "type": "made by"}],
}


@pytest.mark.parametrize("record", [PLAIN, OTHER_SPELLINGS])
@pytest.mark.parametrize("layout", ["lines", "list"])
def test_the_plain_form_is_read_in_lines_and_lists(tmp_path: Path, record: dict[str, Any], layout: str) -> None:
    path = tmp_path / "file.json"
    path.write_text(json.dumps(record if layout == "lines" else [record]))
    corpus = read_corpus(path)
    assert corpus.format == "plain" and entities_of(corpus) == ENTITIES and relations_of(corpus) == RELATIONS
    assert not corpus.notices and corpus.documents[0].id == record.get("id", "")


def test_texts_without_entities_are_sentences_too(tmp_path: Path) -> None:
    corpus = read_corpus(put(tmp_path, {"text": "Nothing. At all.", "entities": []}))
    assert corpus.format == "plain" and corpus.n_sentences == 2


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (["entities", 0, "start"], "2", r"entities\[0\]\.start is \"2\", but a whole number is expected"),
        (["entities", 0, "type"], KeyError, "has no field 'type'"),
        (["entities", 0], [2, 14], "an entity in brackets has three values"),
        (["entities", 0], {"pieces": [], "type": "P"}, "at least one piece"),
        (["relations", 0, "head"], 3, "the record has 3 entities"),
        (["relations", 0, "head"], "x", "no entity of the record has this id"),
        (["word_offsets"], [[0]], r"word_offsets\[0\] is \[0\], but a place in the text is a pair"),
        (["entities", 2, "id"], True, "an id is a string or a whole number"),
    ],
)
def test_mistakes_are_refused_with_place_value_and_remedy(
    tmp_path: Path, keys: list[str | int], value: Any, message: str
) -> None:
    with pytest.raises(DataError, match=rf"line 1.*{message}"):
        read_corpus(put(tmp_path, changed({**PLAIN, "word_offsets": None}, keys, value)))


def test_an_id_is_that_of_one_entity(tmp_path: Path) -> None:
    entities = [{**entity, "id": "same"} for entity in PLAIN["entities"]]
    with pytest.raises(DataError, match=r"entities\[1\]\.id is \"same\".*another entity of the text has this id"):
        read_corpus(put(tmp_path, {**PLAIN, "entities": entities}))


def test_what_is_read_is_written_as_it_was(tmp_path: Path) -> None:
    pieces = {"id": "w", "pieces": [[2, 5], [21, 25]], "type": "Work", "probability": 0.5}
    record = changed({**PLAIN, "source": "mine"}, ["entities", 1], pieces)
    assert write_corpus(read_corpus(put(tmp_path, record)), tmp_path / "out.jsonl", "plain") == {}
    assert json.loads((tmp_path / "out.jsonl").read_text()) == record


@pytest.mark.parametrize("name", EXAMPLES)
def test_words_of_other_formats_come_back_through_the_plain_form(tmp_path: Path, name: str) -> None:
    corpus = read_corpus(put(tmp_path, EXAMPLES[name]))
    write_corpus(corpus, tmp_path / "out.jsonl", "plain")
    again = read_corpus(tmp_path / "out.jsonl")
    assert again.format == "plain" and again.documents[0].id == corpus.documents[0].id
    for sentence, before in zip(again.sentences, corpus.sentences, strict=True):
        assert (sentence.words, sentence.entities, sentence.relations) == (
            before.words,
            before.entities,
            before.relations,
        )
    assert again.documents[0].cross_relations == corpus.documents[0].cross_relations


def test_words_of_scripts_without_spaces_are_joined_without_them(tmp_path: Path) -> None:
    record = {"tokens": list("\u5979\u5728\u5317\u4eac\u5de5\u4f5c\u3002"), "entities": [], "relations": []}
    record["tokens"].insert(2, "ACME")
    write_corpus(read_corpus(put(tmp_path, record)), tmp_path / "out.jsonl", "plain")
    written = json.loads((tmp_path / "out.jsonl").read_text())
    assert written["text"] == "\u5979\u5728 ACME \u5317\u4eac\u5de5\u4f5c\u3002"
    assert list(read_corpus(tmp_path / "out.jsonl").sentences[0].words) == record["tokens"]


def test_arguments_that_are_no_entities_and_probabilities_come_back(tmp_path: Path) -> None:
    record = {
        "tokens": ["Ada", "wrote", "code"],
        "entities": [{"type": "", "start": 0, "end": 1}, {"type": "W", "start": 2, "end": 3, "probability": 0.25}],
        "relations": [{"type": "r", "head": 0, "tail": 1, "probability": 0.75}],
    }
    corpus = read_corpus(put(tmp_path, record))
    write_corpus(corpus, tmp_path / "out.jsonl", "plain")
    [sentence] = read_corpus(tmp_path / "out.jsonl").sentences
    assert sentence.entities == (Entity(2, 3, "W"),) and sentence.entities[0].probability == 0.25
    assert sentence.relations == (Relation("r", Entity(0, 1, ""), Entity(2, 3, "W")),)
    losses: Counter[str] = write_corpus(corpus, tmp_path / "folder", "brat")
    assert losses["entities without a type, which are only arguments"] == 1
    assert losses["relations of entities without a type"] == losses["probabilities of entities and relations"] == 1
