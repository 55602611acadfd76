"""doccano: exports of all versions, and records that cannot be read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from annotation_tools import DOCCANO, ENTITIES, TEXT, entities_of, relations_of
from corpora import changed, put

from spe_dist.errors import DataError
from spe_dist.extraction.formats import read_corpus

SPANS = [[2, 14, "Person"], [21, 25, "Work"], [27, 29, "Work"]]


@pytest.mark.parametrize("text_field", ["text", "data"])
@pytest.mark.parametrize("field", ["label", "labels", "annotations"])
def test_spans_of_all_versions_are_read(tmp_path: Path, text_field: str, field: str) -> None:
    corpus = read_corpus(put(tmp_path, {"id": 1, text_field: TEXT, field: SPANS, "meta": {}}))
    assert corpus.format == "doccano" and entities_of(corpus) == ENTITIES and not corpus.notices


def test_numbers_in_place_of_labels_are_types_and_counted(tmp_path: Path) -> None:
    spans = [{"label": 3, "start_offset": 21, "end_offset": 25, "user": 1}]
    corpus = read_corpus(put(tmp_path, {"text": TEXT, "annotations": spans, "annotation_approver": None}))
    assert entities_of(corpus) == [("code", "3")]
    [(notice, count)] = corpus.notices.items()
    assert notice.startswith("labels that are numbers") and count == 1


def test_texts_without_entities_are_of_the_format_of_the_others(tmp_path: Path) -> None:
    bare = {"id": 1, "text": "It ran.", "entities": [], "relations": []}
    corpus = read_corpus(put(tmp_path, bare, DOCCANO, bare))
    assert corpus.format == "doccano" and len(corpus.documents) == 3
    assert entities_of(corpus) == ENTITIES and len(relations_of(corpus)) == 2


def test_further_fields_of_a_text_are_kept(tmp_path: Path) -> None:
    [document] = read_corpus(put(tmp_path, {**DOCCANO, "url": "x", "Comments": ["good"]})).documents
    assert document.extra == {"url": "x", "Comments": ["good"]}


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (["relations", 0, "to_id"], 9, r"line 1: relations\[0\].to_id is 9, but no entity of the text has this id"),
        (["entities", 1, "id"], 41, r"entities\[1\].id is 41, but another entity of the text has this id"),
        (["entities", 0, "start_offset"], "2", r"entities\[0\].start_offset is \"2\", but a whole number"),
        (["entities", 0, "end_offset"], KeyError, r"entities\[0\] has no field 'end_offset'"),
        (["entities", 0, "label"], " ", r"entities\[0\].label is \" \", but a type needs a name"),
        (["relations", 0, "type"], None, r"relations\[0\].type is null, but a string is expected"),
        (["text"], 3, "and so no known format"),
    ],
)
def test_damaged_records_are_refused_with_their_place(
    tmp_path: Path, keys: list[str | int], value: Any, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        read_corpus(put(tmp_path, changed(DOCCANO, keys, value)))


def test_labels_of_whole_texts_are_no_corpus(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r'label\[0\] is "good", but a labelled span.*sequence labelling'):
        read_corpus(put(tmp_path, {"id": 1, "text": TEXT, "label": ["good"]}))
