"""Entities named by their text in ordinary text: `nyt` without tokenisation, and texts with triples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from corpora import TRIPLES, put
from project import SHARED

from spe_dist.errors import DataError
from spe_dist.extraction.annotations.settings import AnnotationSettings
from spe_dist.extraction.corpora.corpus import Corpus, Sentence
from spe_dist.extraction.formats import read_corpus, write_corpus, written_format

CASES = SHARED / "cases" / "annotations"


def nyt(text: str, *triples: tuple[str, str, str], entities: list[Any] | None = None) -> dict[str, Any]:
    relations = [{"em1Text": head, "em2Text": tail, "label": label} for head, label, tail in triples]
    record: dict[str, Any] = {"sentText": text, "relationMentions": relations}
    return record if entities is None else {**record, "entityMentions": entities}


def read(folder: Path, *records: Any) -> Corpus:
    return read_corpus(put(folder, *records))


def texts(sentence: Sentence) -> list[str]:
    return [" ".join(sentence.words[entity.start : entity.end]) for entity in sentence.entities]


def related(sentence: Sentence) -> list[tuple[int, str, int]]:
    return [(relation.head.start, relation.type, relation.tail.start) for relation in sentence.relations]


@pytest.mark.skipif(not CASES.is_dir(), reason="needs the cases beside the project")
def test_the_cases_lose_nothing_beside_punctuation() -> None:
    (sentence,) = read_corpus(CASES / "nyt_punctuation.jsonl").sentences
    assert texts(sentence) == ["Ada", "Acme", "Bob", "Corex"] and len(sentence.relations) == 2
    corpus = read_corpus(CASES / "triples.jsonl")
    (sentence,) = corpus.sentences
    assert corpus.format == "triples"
    assert sorted(texts(sentence)) == ["Acme", "Ada Lovelace", "London"] and len(sentence.relations) == 2
    assert sorted(count for reason, count in corpus.notices.items() if "not trained on" in reason) == [1, 1]


def test_words_of_ordinary_text_have_their_characters_and_further_fields_stay(tmp_path: Path) -> None:
    (sentence,) = read(tmp_path, TRIPLES).sentences
    assert sentence.text == TRIPLES["text"] and sentence.char_spans is not None
    assert tuple(sentence.text[start:end] for start, end in sentence.char_spans) == sentence.words
    assert sentence.words[:4] == ("Ada", "Lovelace", "'s", "firm") and sentence.extra["id"] == 7


def test_tokenised_text_keeps_its_words_whatever_punctuation_a_sentence_has(tmp_path: Path) -> None:
    tokenised = [nyt(f"Ada , Bob , Cy , Dee and firm {number} .") for number in range(9)]
    corpus = read(tmp_path, *tokenised, nyt("Ada owns don't-know Inc.", ("Ada", "owns", "don't-know Inc.")))
    last = corpus.sentences[-1]
    assert last.words == ("Ada", "owns", "don't-know", "Inc.") and last.text is None and len(last.relations) == 1


def test_text_without_spaces_between_words_is_split_into_characters(tmp_path: Path) -> None:
    (sentence,) = read(tmp_path, {"text": "张三在北京工作。", "triple_list": [["张三", "works in", "北京"]]}).sentences
    assert [(relation.head.span, relation.tail.span) for relation in sentence.relations] == [((0, 2), (3, 5))]


def test_a_mention_that_cuts_a_word_takes_it_whole_but_is_not_found_inside_another_word(tmp_path: Path) -> None:
    text = "See http://acme.example/x, said Ada, at the party."
    corpus = read(tmp_path, nyt(text, ("acme", "of", "Ada"), ("part", "of", "Ada")))
    (sentence,) = corpus.sentences
    assert [texts(sentence), len(sentence.relations)] == [["http://acme.example/x", "Ada"], 1]
    assert corpus.notices["mentions that cut a word (the whole words are taken)"] == 1
    assert any("not in the sentence" in reason for reason in corpus.notices)
    whole = read(tmp_path, nyt("See http://acme.example/x of acme, Ada.", ("acme", "of", "Ada"))).sentences[0]
    assert texts(whole) == ["acme", "Ada"]


def test_words_of_ordinary_text_are_those_of_its_language_and_mentions_that_cut_one_can_be_left_out(
    tmp_path: Path,
) -> None:
    path = put(tmp_path, nyt("Am 3. Mai kam Ada, aus Ulm-Mitte.", ("Ada", "from", "Ulm"), ("Ada", "on", "3. Mai")))
    for language, word in (("auto", "3"), ("de", "3.")):
        (sentence,) = read_corpus(path, settings=AnnotationSettings(language=language)).sentences
        assert sentence.words[1] == word
    (sentence,) = read_corpus(path, settings=AnnotationSettings(language="de")).sentences
    assert texts(sentence) == ["Ada", "Ulm-Mitte", "3. Mai"]
    corpus = read_corpus(path, settings=AnnotationSettings(language="de", cut_words="drop"))
    (sentence,) = corpus.sentences
    assert texts(sentence) == ["Ada", "3. Mai"] and len(sentence.relations) == 1
    assert corpus.notices["mentions that cut a word, left out"] == 1
    triples = {"text": "Am 3. Mai kam Ada, aus Ulm.", "triple_list": [["Ada", "from", "Ulm"]]}
    (sentence,) = read_corpus(put(tmp_path, triples), settings=AnnotationSettings(language="de")).sentences
    assert sentence.words[1] == "3." and len(sentence.relations) == 1


def test_head_and_tail_of_one_text_are_two_places_where_it_stands_twice(tmp_path: Path) -> None:
    listed = [{"text": "Paris", "label": "City"}]
    for text in ("Paris , Texas , is twinned with Paris , France .", "Paris, Texas, is twinned with Paris, France."):
        corpus = read(tmp_path, nyt(text, ("Paris", "twin", "Paris"), entities=listed))
        (sentence,) = corpus.sentences
        assert related(sentence) == [(0, "twin", 7)] and [e.type for e in sentence.entities] == ["City", "City"]
        assert any("relations of a text with itself" in reason for reason in corpus.notices)
        twice = read(tmp_path, nyt(text, ("Paris", "twin", "Paris"), entities=listed * 2)).sentences[0]
        assert related(twice) == [(0, "twin", 7)] and len(twice.entities) == 2
    assert related(read(tmp_path, {"text": text, "triple_list": [["Paris", "twin", "Paris"]]}).sentences[0]) == [
        (0, "twin", 7)
    ]
    once = read(tmp_path, nyt("Paris is old .", ("Paris", "twin", "Paris")))
    assert related(once.sentences[0]) == [(0, "twin", 0)]


def test_starts_count_what_stands_between_spaces_in_ordinary_text(tmp_path: Path) -> None:
    mentions = [{"text": "code", "label": "W", "start": 3}, {"text": "law", "label": "W", "start": 9}]
    corpus = read(tmp_path, nyt("(Old) code, is code, not law.", entities=mentions))
    assert [entity.start for entity in corpus.sentences[0].entities] == [6, 9]
    assert corpus.sentences[0].words[6] == "code" and corpus.sentences[0].words[9] == "law"


@pytest.mark.parametrize("name", ["nyt", "spert", "dygie"])
def test_ordinary_text_comes_back_with_its_words_from_every_format(tmp_path: Path, name: str) -> None:
    corpus = read(tmp_path, TRIPLES, {"text": "He left the U.S.", "triple_list": [["He", "left", "U.S."]]})
    write_corpus(corpus, tmp_path / "out.json", name)
    again = read_corpus(tmp_path / "out.json")
    assert [(s.words, s.entities, s.relations) for s in again.sentences] == [
        (s.words, s.entities, s.relations) for s in corpus.sentences
    ]
    assert written_format("triples") == "spert"
    given: dict[str, Any] = {"tokens": ["Ada", "owns", "Acme,", "(they", "say)."], "relations": []}
    given["entities"] = [{"type": "P", "start": 0, "end": 1}]
    write_corpus(read(tmp_path, given), tmp_path / "out.json", name)
    assert list(read_corpus(tmp_path / "out.json").sentences[0].words) == given["tokens"]


@pytest.mark.parametrize(
    ("triples", "message"),
    [
        ([["Ada", "owns"]], "triple_list[0] is"),
        ([["Ada", "owns", "Acme"], ["Ada", 3, "Acme"]], "triple_list[1][1] is 3"),
        ([["Ada", "owns", " "]], "an entity needs words"),
        ([["Ada", "", "Acme"]], "a type needs a name"),
        ("Ada", "a list is expected"),
    ],
)
def test_what_is_no_triple_is_refused_by_its_place(tmp_path: Path, triples: Any, message: str) -> None:
    path = put(tmp_path, TRIPLES, {**TRIPLES, "triple_list": triples})
    with pytest.raises(DataError) as error:
        read_corpus(path)
    assert message in str(error.value) and f"{path}, line 2" in str(error.value) and "; " in str(error.value)
