"""Sentences end where a reader ends them, as words with their places."""

from __future__ import annotations

import lzma
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from project import SHARED

from spe_dist.data.text.sentences import split_sentences
from spe_dist.data.text.words import SpacySplitter, Word, tokenizer_of

TEXT_FOLDER = SHARED / "data/text"
MARKS = st.sampled_from(["Ann", "runs", ".", "!", "?", "...", '"', "(", ")", "\u201d", "\u3002", "a.b", "U.S.", "\n"])


def texts_of(text: str) -> list[str]:
    return [text[words[0].start : words[-1].end] for words in split_sentences(text)]


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("Dr. Smith met Mr. Jones. They left.", ["Dr. Smith met Mr. Jones.", "They left."]),
        ("As Li et al. (2019) show, it works. See Fig. 3.", ["As Li et al. (2019) show, it works.", "See Fig. 3."]),
        ("He lives in the U.S. He likes it.", ["He lives in the U.S.", "He likes it."]),
        ("The U.S. team won. It was easy.", ["The U.S. team won.", "It was easy."]),
        ('"Is it so?" asked Ann. "Yes," said he.', ['"Is it so?" asked Ann.', '"Yes," said he.']),
        ("hi there. how are you?", ["hi there.", "how are you?"]),
        ("It rose 3.5%. iPhone sales fell.", ["It rose 3.5%.", "iPhone sales fell."]),
        ("Work of (Huet et al., 2012) is new. Good.", ["Work of (Huet et al., 2012) is new.", "Good."]),
        # a word that starts sentences behind a title or an abbreviation that never ends one
        ("We met Dr. You at noon. He left.", ["We met Dr. You at noon.", "He left."]),
        ("It has tools, e.g. The Gimp. Use it.", ["It has tools, e.g. The Gimp.", "Use it."]),
        ("He works for Acme Inc. The firm is old.", ["He works for Acme Inc.", "The firm is old."]),
        ("See Lt. Col. Smith there. He left.", ["See Lt. Col. Smith there.", "He left."]),
        ("Values vs. Their bounds. Good.", ["Values vs. Their bounds.", "Good."]),
        ("See vol. 3 and no. 4. It ends.", ["See vol. 3 and no. 4.", "It ends."]),
        ("Of these (cf. Smith). Next.", ["Of these (cf. Smith).", "Next."]),
        ("", []),
        (" \n ", []),
    ],
)
def test_sentences_end_where_a_reader_ends_them(text, sentences):
    assert texts_of(text) == sentences


@pytest.mark.skipif(not TEXT_FOLDER.is_dir(), reason="the shared text is not here")
@pytest.mark.parametrize("name", ["acl_abstracts", "wiki_good_featured"])
def test_sentences_of_real_text_are_found(name):
    lines, paragraphs = set(), [""]
    with lzma.open(TEXT_FOLDER / f"{name}.txt.xz", "rt", encoding="utf-8") as file:
        for line, _ in zip(map(str.strip, file), range(3000), strict=False):
            lines.add(line)
            paragraphs[-1] = f"{paragraphs[-1]} {line}"
            paragraphs += [""] if not line else []
    found = [sentence for paragraph in paragraphs for sentence in texts_of(paragraph)]
    assert sum(sentence in lines for sentence in found) > 0.975 * max(len(found), len(lines))


@cache
def sentencizer_of_spacy():
    """(spaCy's blank English, its sentencizer), made once: it takes longer than all examples together."""
    language = pytest.importorskip("spacy").blank("en")
    return language, language.add_pipe("sentencizer")


@given(st.lists(st.tuples(MARKS, st.sampled_from(["", " "])), max_size=25))
@settings(max_examples=200, deadline=None)
def test_borders_are_those_of_spacys_sentencizer_but_for_opening_quotes_and_abbreviations(marks):
    spacy = pytest.importorskip("spacy")
    language, sentencizer = sentencizer_of_spacy()
    text = "".join(mark + space for mark, space in marks)
    words = tokenizer_of("en").words_with_offsets(text)
    if not words:
        assert not list(split_sentences(text))
        return
    doc = spacy.tokens.Doc(language.vocab, words=[word.text for word in words])
    starts = {word.start for word, is_start in zip(words, sentencizer.predict([doc])[0], strict=True) if is_start}
    for found in split_sentences(text):
        start = found[0].start
        before_opening = len(found) > 1 and found[1].start in starts
        after_abbreviation = any(word.end < start and word.text == "U.S." for word in words)
        assert start in starts or before_opening or after_abbreviation


def test_text_without_any_full_stop_is_held_in_bounded_parts(monkeypatch):
    asked = 0

    def endless(self: SpacySplitter, text: str):
        nonlocal asked
        for i in range(10_000):
            asked += 1
            yield Word("word", 5 * i, 5 * i + 4)

    monkeypatch.setattr(SpacySplitter, "iterate_words", endless)
    assert len(next(split_sentences(""))) == 2_000 and asked < 5_000
