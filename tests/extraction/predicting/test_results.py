"""Results as objects: how they print, compare and sort, and the JSON that `spe predict` writes of them."""

from __future__ import annotations

import pickle
from dataclasses import FrozenInstanceError, replace

import pytest

from spe_dist import Extractor, predict
from spe_dist.extraction.corpora import corpus
from spe_dist.extraction.predicting.results import Entity, MinProbability, Relation, Sentence, result_of

TEXT = "John Smith works for IBM in Boston. He \U0001f600 likes\nit; Ann\u2028went to Paris."


@pytest.fixture
def sentence() -> Sentence:
    smith = corpus.Entity(0, 2, "Peop", probability=0.9814)
    ibm = corpus.Entity(4, 5, "Org", probability=0.97)
    works = corpus.Relation("Work_For", smith, ibm, 0.95004)
    words = ("John", "Smith", "works", "for", "IBM", ".")
    spans = ((0, 4), (5, 10), (11, 16), (17, 20), (21, 24), (24, 25))
    found = corpus.Sentence(words, (smith, ibm), (works,), "John\nSmith works for IBM.", spans)
    return result_of(found, start=100)


def test_what_is_less_probable_is_left_out_with_its_relations():
    a, b, c = (corpus.Entity(i, i + 1, "T", probability=p) for i, p in enumerate((0.9, 0.5, 0.9)))
    pairs = [(a, b, 0.8), (b, c, 0.8), (a, c, 0.8), (c, a, 0.4)]
    relations = tuple(corpus.Relation("r", *pair) for pair in pairs)
    sentence = corpus.Sentence(("x", "y", "z"), (a, b, c), relations)

    def kept(**limits):
        left = MinProbability.of(**limits).apply(sentence)
        return left.entities, [relations.index(relation) for relation in left.relations]

    assert kept(both=0.0) == ((a, b, c), [0, 1, 2, 3])
    assert kept(both=0.6) == ((a, c), [2])
    assert kept(both=0.5) == ((a, b, c), [0, 1, 2])
    assert kept(both=0.0, entities=0.6) == ((a, c), [2, 3])
    assert kept(both=0.6, relations=0.0) == ((a, c), [2, 3])
    assert kept(both=0.6, entities=0.0) == ((a, b, c), [0, 1, 2])


def test_results_print_as_what_was_found(sentence):
    assert str(sentence) == "John Smith [Peop 0.98] works for IBM [Org 0.97].\n  John Smith --Work_For--> IBM, 0.95"
    assert repr(sentence) == (
        "Sentence(John Smith [Peop 0.98] works for IBM [Org 0.97].; John Smith --Work_For--> IBM, 0.95)"
    )
    assert repr(sentence.entities[0]) == "Entity(John Smith [Peop 0.98])"
    assert repr(sentence.relations[0]) == "Relation(John Smith --Work_For--> IBM, 0.95)"


def test_line_breaks_print_as_space_but_not_between_chinese_characters():
    place = corpus.Entity(1, 3, "Loc", probability=0.9)
    words, spans = ("在", "北", "京", "。"), ((0, 1), (1, 2), (3, 4), (4, 5))
    found = result_of(corpus.Sentence(words, (place,), (), "在北\n京。", spans), start=0)
    assert str(found) == "在北京 [Loc 0.90]。" and str(found.entities[0]) == "北京 [Loc 0.90]"
    assert found.entities[0].text == "北\n京"


def test_a_sentence_in_which_nothing_was_found_says_so(sentence):
    assert str(replace(sentence, entities=(), relations=())) == "John Smith works for IBM. (nothing found)"


def test_offsets_count_in_the_input_and_words_in_the_sentence(sentence):
    smith, ibm = sentence.entities
    assert (sentence.start_char, sentence.end_char) == (100, 125)
    assert (smith.text, smith.start_char, smith.end_char, smith.start_word, smith.end_word) == (
        "John\nSmith",
        100,
        110,
        0,
        2,
    )
    assert sentence.word_offsets[4] == (ibm.start_char, ibm.end_char) == (121, 124)
    assert sentence.relations[0].head is smith and sentence.relations[0].tail is ibm


def test_results_cannot_be_changed_and_can_be_kept_in_sets_and_pickled(sentence):
    with pytest.raises(FrozenInstanceError):
        sentence.entities[0].type = "Loc"
    assert not hasattr(sentence, "__dict__") and not hasattr(sentence.entities[0], "__dict__")
    assert len({*sentence.entities, *sentence.entities, *sentence.relations, sentence, sentence}) == 4
    assert pickle.loads(pickle.dumps(sentence)) == sentence


def test_the_same_finding_is_equal_whatever_its_probability_and_findings_sort_by_position(sentence):
    smith, ibm = sentence.entities
    assert replace(smith, probability=0.1) == smith and hash(replace(smith, probability=0.1)) == hash(smith)
    assert replace(smith, type="Org") != smith
    assert sorted([ibm, smith]) == [smith, ibm]
    other = Relation(ibm, smith, "Work_For", 0.5)
    assert other != sentence.relations[0] and sorted([other, *sentence.relations]) == [*sentence.relations, other]


def test_words_without_text_are_placed_in_the_words_joined():
    found = corpus.Sentence(("Ann", "left"), (corpus.Entity(1, 2, "A", probability=1.0),))
    assert result_of(found, 0).entities == (Entity(4, 8, "A", "left", 1, 2, 1.0),)


@pytest.fixture(scope="module")
def extractor(extractor_folder) -> Extractor:
    return Extractor.from_pretrained(extractor_folder, "cpu", bfloat16=False)


def test_spe_predict_writes_the_sentences_of_predict_files_byte_for_byte(extractor, extractor_folder, tmp_path):
    text, output = tmp_path / "text.txt", tmp_path / "out.jsonl"
    text.write_text(TEXT, encoding="utf-8")
    options = ["--device", "cpu", "--no-bfloat16", "--quiet", "--min_probability_relations", "0.2"]
    assert predict.main([str(extractor_folder), str(text), "--output", str(output), *options]) == 0
    sentences = list(extractor.predict_files(text, min_probability_relations=0.2))
    assert any(sentence.relations for sentence in sentences)
    assert output.read_bytes() == b"".join(sentence.to_json().encode() + b"\n" for sentence in sentences)
    assert [(s.place.file, s.place.line) for s in sentences if s.place] == [(str(text), 1)] * 2


def test_the_record_of_a_text_is_that_of_its_file_but_for_the_place(extractor, tmp_path):
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    from_file = list(extractor.predict_files(tmp_path / "text.txt"))
    from_text = extractor.predict(TEXT)
    assert from_text == from_file and all(sentence.place is None for sentence in from_text)
    for a, b in zip(from_text, from_file, strict=True):
        assert list(b.to_dict().items())[4:] == list(a.to_dict().items())
