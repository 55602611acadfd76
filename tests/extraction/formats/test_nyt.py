"""Distantly supervised corpora as NYT has them: mentions are found by their text."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from corpora import NYT, changed, put

from spe_dist.extraction.corpora.corpus import Entity
from spe_dist.extraction.formats import read_corpus, write_corpus


def test_nyt_mentions_are_found_by_text_and_none_is_no_relation(tmp_path: Path) -> None:
    none = {"em1Text": "Ada Lovelace", "em2Text": "code", "label": "None"}
    noise = {"em1Text": "Ada Lovelace", "em2Text": "code", "label": "Read", "is_noise": True}
    corpus = read_corpus(put(tmp_path, changed(NYT, ["relationMentions"], [none, noise])))
    assert corpus.sentences[0].relations == () and len(corpus.sentences[0].entities) == 2
    assert sorted(count for reason, count in corpus.notices.items() if "no relation" in reason) == [1, 1]


def test_nyt_text_that_occurs_twice_takes_the_first_or_the_word_that_start_names(tmp_path: Path) -> None:
    record = {
        "sentText": "code is code is law",
        "entityMentions": [
            {"start": 2, "label": "Work", "text": "code"},
            {"start": 1, "label": "Rule", "text": "code"},
        ],
        "relationMentions": [{"em1Text": "code", "em2Text": "law", "label": "Is"}],
    }
    corpus = read_corpus(put(tmp_path, record))
    assert [(entity.start, entity.type) for entity in corpus.sentences[0].entities] == [(2, "Work"), (0, "Rule")]
    (relation,) = corpus.sentences[0].relations
    assert (relation.head, relation.tail) == (Entity(2, 3, "Work"), Entity(4, 5, ""))
    assert any("occurs several times" in reason for reason in corpus.notices)
    assert any("'start' is not a word position" in reason for reason in corpus.notices)


def test_same_nyt_mention_listed_twice_is_at_its_two_occurrences(tmp_path: Path) -> None:
    mentions = [{"label": "Work", "text": "code"}] * 2
    record = {"sentText": "code is code", "entityMentions": mentions, "relationMentions": []}
    assert [entity.start for entity in read_corpus(put(tmp_path, record)).sentences[0].entities] == [0, 2]


def test_nyt_mentions_that_are_not_in_the_sentence_are_kept_counted_and_written_again(tmp_path: Path) -> None:
    record = changed(NYT, ["entityMentions", 0, "text"], "Ada Byron")
    record["relationMentions"].append({"em1Text": "Ada Byron", "em2Text": "code", "label": "Wrote"})
    corpus = read_corpus(put(tmp_path, record))
    assert sum(count for reason, count in corpus.notices.items() if "not trained on" in reason) == 2
    write_corpus(corpus, tmp_path / "again.json", "nyt")
    again = json.loads((tmp_path / "again.json").read_text(encoding="utf-8"))
    assert {mention["text"] for mention in again["entityMentions"]} >= {"Ada Byron"}
    assert {mention["label"] for mention in again["relationMentions"]} == {"Made-By", "Wrote"}
    bare = [replace(sentence, entities=(), relations=()) for sentence in corpus.sentences]
    write_corpus(corpus.with_sentences(bare), tmp_path / "predicted.json", "nyt")
    predicted = json.loads((tmp_path / "predicted.json").read_text(encoding="utf-8"))
    assert predicted["entityMentions"] == predicted["relationMentions"] == []


def test_nyt_without_entity_mentions_finds_entities_in_its_relations(tmp_path: Path) -> None:
    corpus = read_corpus(put(tmp_path, changed(NYT, ["entityMentions"], KeyError)))
    assert corpus.sentences[0].entities == (Entity(3, 4, "entity"), Entity(0, 2, "entity"))
    assert any("without entity mentions" in reason for reason in corpus.notices)


def test_nyt_starts_that_number_the_mentions_are_no_positions_even_where_one_fits(tmp_path: Path) -> None:
    texts = ["Ada", "Paris", "Paris"]
    mentions = [{"start": number, "label": "X", "text": text} for number, text in enumerate(texts)]
    record = {"sentText": "Ada saw Paris , not Paris", "entityMentions": mentions, "relationMentions": []}
    assert [entity.start for entity in read_corpus(put(tmp_path, record)).sentences[0].entities] == [0, 2, 5]
    fitting = {**record, "sentText": "Ada Paris Paris"}  # numbers that are positions too
    assert [entity.start for entity in read_corpus(put(tmp_path, fitting)).sentences[0].entities] == [0, 1, 2]


def test_what_nyt_kept_aside_is_counted_in_every_format_it_is_converted_to(tmp_path: Path) -> None:
    record = changed(NYT, ["entityMentions", 0, "text"], "Ada Byron")
    record["relationMentions"].append({"em1Text": "Ada Byron", "em2Text": "code", "label": "Wrote"})
    corpus = read_corpus(put(tmp_path, record))
    for name in ("dygie", "spert", "pspe"):
        write_corpus(corpus, tmp_path / name, name)
        again = read_corpus(tmp_path / name)
        assert sorted(count for reason, count in again.notices.items() if "not trained on" in reason) == [1, 1]
    own = read_corpus(put(tmp_path, {**NYT, "unplaced": {"foo": 1}}))
    assert any("'unplaced'" in reason for reason in own.notices) and own.sentences[0].unplaced == {}


def test_double_spaces_make_no_other_words_in_predictions_that_mark_nothing(tmp_path: Path) -> None:
    record = {**NYT, "sentText": NYT["sentText"].replace(" ", "  ")}
    bare = {**record, "entityMentions": [], "relationMentions": []}
    gold, predicted = read_corpus(put(tmp_path, record)), read_corpus(put(tmp_path, bare), predictions=True)
    assert (gold.format, predicted.format) == ("nyt", "pspe")
    assert gold.sentences[0].words == predicted.sentences[0].words


@pytest.mark.parametrize("space", [" ", "\u00a0"])
def test_nyt_mentions_are_found_whatever_their_spaces_also_where_a_word_holds_one(tmp_path: Path, space: str) -> None:
    texts = {"Ada  Lovelace": "P", "5 km": "M", "5\u00a0km": "M"}
    record = {
        "sentText": f"Ada  Lovelace wrote 5{space}km",
        "entityMentions": [{"label": label, "text": text} for text, label in texts.items()],
        "relationMentions": [{"em1Text": "Ada Lovelace", "em2Text": "5  km", "label": "wrote"}],
    }
    corpus = read_corpus(put(tmp_path, record))
    (sentence,) = corpus.sentences
    ada, distance, same = sentence.entities
    assert (ada.span, distance.start, same) == ((0, 2), 3, distance) and distance.end == len(sentence.words)
    assert (sentence.relations[0].head, sentence.relations[0].tail) == (ada, distance) and not corpus.notices


def test_nyt_mention_that_fits_to_the_letter_goes_before_one_that_has_other_spaces(tmp_path: Path) -> None:
    mentions = [{"start": 0, "label": "M", "text": "5\u00a0km"}, {"start": 2, "label": "N", "text": "5 km"}]
    record = {
        "tokens": ["5\u00a0km", "or", "5", "km", ""],
        "sentText": "5\u00a0km or 5 km ",
        "entityMentions": mentions,
        "relationMentions": [{"em1Text": "5 km", "em2Text": "5\u00a0km", "label": "is"}],
    }
    (sentence,) = read_corpus(put(tmp_path, record), format="nyt").sentences
    (relation,) = sentence.relations
    assert (relation.head, relation.tail) == (Entity(2, 4, "N"), Entity(0, 1, "M"))


def test_thousands_of_mentions_in_a_sentence_with_a_no_break_space_are_found(tmp_path: Path) -> None:
    words = [f"w{number}" for number in range(4000)]
    texts = [" ".join(words[start : start + 2]) for start in range(3000)]
    record = {
        "sentText": " ".join([*words, "5\u00a0km"]),
        "entityMentions": [{"label": "X", "text": text} for text in texts],
        "relationMentions": [{"em1Text": head, "em2Text": tail, "label": "R"} for head, tail in pairwise(texts[:2001])],
    }
    (sentence,) = read_corpus(put(tmp_path, record)).sentences
    assert (len(sentence.entities), len(sentence.relations)) == (3000, 2000)
