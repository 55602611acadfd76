"""Corpora as PSPE has them: words between single spaces, offsets in parts, texts that must agree."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from corpora import PSPE, changed, plain, put

from spe_dist.errors import DataError
from spe_dist.extraction.corpora.corpus import Entity
from spe_dist.extraction.formats import read_corpus, write_corpus


def test_neighbours_with_one_article_are_one_document(tmp_path: Path) -> None:
    lines = [{**PSPE, "articleId": article} for article in ("a", "a", "b", None, None)]
    corpus = read_corpus(put(tmp_path, *lines))
    assert [(document.id, len(document.sentences)) for document in corpus.documents] == [
        ("a", 2),
        ("b", 1),
        ("", 1),
        ("", 1),
    ]


def test_pspe_offset_in_several_parts_is_a_discontinuous_entity(tmp_path: Path) -> None:
    mention = {"emId": "E1", "text": "Ada wrote", "offset": [0, 1, 2, 3], "label": "Person"}
    record = changed(changed(PSPE, ["entityMentions", 0], mention), ["relationMentions"], [])
    path = put(tmp_path, record)
    assert read_corpus(path).sentences[0].entities[0] == Entity(0, 3, "Person", fragments=((0, 1), (2, 3)))
    assert write_corpus(read_corpus(path), tmp_path / "pspe.json", "pspe") == {}
    assert plain(read_corpus(tmp_path / "pspe.json")) == plain(read_corpus(path))
    losses = write_corpus(read_corpus(path), tmp_path / "spert.json", "spert")
    assert losses == {"discontinuous entities, written as one span with the words between their parts": 1}


def test_pspe_words_are_what_stands_between_single_spaces_unless_texts_say_otherwise(tmp_path: Path) -> None:
    double = changed(PSPE, ["sentText"], "Ada Lovelace wrote  code")
    assert read_corpus(put(tmp_path, double)).sentences[0].words == ("Ada", "Lovelace", "wrote", "code")
    counted = changed(double, ["entityMentions", 1, "offset"], [4, 5])
    sentence = read_corpus(put(tmp_path, counted)).sentences[0]
    assert sentence.words == ("Ada", "Lovelace", "wrote", "code") and sentence.entities[1].span == (3, 4)


def test_few_differing_texts_of_a_pspe_file_are_counted_and_many_are_refused(tmp_path: Path) -> None:
    other = changed(PSPE, ["entityMentions", 0, "text"], "A. Lovelace")
    corpus = read_corpus(put(tmp_path, *[PSPE] * 10, other))
    assert [count for reason, count in corpus.notices.items() if "text differs" in reason] == [1]
    with pytest.raises(DataError, match=r"line 1: entityMentions\[0\].text is \"A. Lovelace\".*\"Ada Lovelace\""):
        read_corpus(put(tmp_path, other))


def test_pspe_empty_words_count_in_offsets_where_nothing_tells_and_are_left_out(tmp_path: Path) -> None:
    bare = {"sentText": "Ada  wrote code", "entityMentions": [], "relationMentions": []}
    mention = {"emId": "E1", "offset": [3, 4], "label": "Work"}
    for mentions in ([], [mention], [mention, {**mention, "emId": "E2", "text": "Ada", "offset": [0, 1]}]):
        sentence = read_corpus(put(tmp_path, {**bare, "entityMentions": mentions})).sentences[0]
        assert sentence.words == ("Ada", "wrote", "code")
        assert [entity.span for entity in sentence.entities] == [(2, 3), (0, 1)][: len(mentions)]
    with pytest.raises(DataError, match=r"offset is \[1, 2\].*empty word"):
        read_corpus(put(tmp_path, {**bare, "entityMentions": [{**mention, "offset": [1, 2]}]}))


def test_pspe_parts_that_touch_are_one_span(tmp_path: Path) -> None:
    mention = {"emId": "E1", "offset": [0, 1, 1, 2], "label": "Work"}
    record = {"sentText": "Ada wrote code", "entityMentions": [mention], "relationMentions": []}
    (entity,) = read_corpus(put(tmp_path, record)).sentences[0].entities
    assert entity.span == (0, 2) and entity.fragments == ()


@pytest.mark.parametrize("mention", [None, 3, True, "text"])
def test_pspe_mention_that_is_no_object_is_named_also_in_a_sentence_with_double_spaces(
    tmp_path: Path, mention: Any
) -> None:
    record = {"sentText": "Ada  wrote code", "entityMentions": [mention], "relationMentions": []}
    with pytest.raises(DataError, match=r"line 1: entityMentions\[0\] is .*object"):
        read_corpus(put(tmp_path, record))
