"""Words: spaces or spaCy's tokenizer, chosen by how punctuation stands; offsets are kept."""

from __future__ import annotations

import lzma

import pytest
from project import SHARED

from spe_dist.data.text import words as words_module
from spe_dist.data.text.words import SpaceSplitter, SpacySplitter, choose_words, make_splitter, measure_punctuation
from spe_dist.errors import ConfigError, DataError

TEXT_FOLDER = SHARED / "data" / "text"
RAW = ["However, the U.S. team (from Boston) didn't win.", "It cost $3.50, he said; they'd paid.", "Why not?"]
TOKENISED = ["However , the U.S. team ( from Boston ) did n't win .", "It cost $ 3.50 , he said ; they 'd paid ."]
AWKWARD = [
    "cannot gonna Mr. etc. e.g. a.m. Smith, 1990. 1,000, 3km 10% U.S.A. (x) don't, www.x.org, A. B, :-) ...",
    "\u00a0a\tb  ",
]


@pytest.fixture(scope="module")
def spacy_words():
    tokenizer = pytest.importorskip("spacy").blank("en").tokenizer
    return lambda text: [token.text for token in tokenizer(text) if not token.is_space]


def test_auto_takes_spaces_for_tokenised_text_and_the_tokenizer_for_raw_text():
    assert choose_words("auto", TOKENISED)[0] == "spaces"
    choice, reason = choose_words("auto", RAW)
    assert choice == "tokenizer" and "attached" in reason
    assert choose_words("auto", ["no punctuation at all here"])[0] == "spaces"


def test_marks_of_every_script_tell_raw_text_from_tokenised_text():
    for raw, tokenised in (
        ("यह शहर है। वह नदी है।", "यह शहर है । वह नदी है ।"),
        ("他来了，她也来了。", "他 来 了 ， 她 也 来 了 。"),  # noqa: RUF001
        ("هل تأتي؟ نعم، غدا", "هل تأتي ؟ نعم ، غدا"),
        ("अब में, नहीं", "अब में , नहीं"),
    ):
        assert choose_words("auto", [raw])[0] == "tokenizer", raw
        assert choose_words("auto", [tokenised])[0] == "spaces", tokenised


def test_text_without_spaces_and_marks_is_raw():
    assert choose_words("auto", ["เมืองนี้ตั้งอยู่ริมแม่น้ำ"]) == ("tokenizer", "the script has no spaces between words")
    assert choose_words("auto", ["เมือง นี้ ตั้ง อยู่ ริม แม่น้ำ"])[0] == "spaces"
    assert choose_words("auto", ["这座城市位于河边"])[0] == "tokenizer"


def test_spaces_on_raw_text_is_refused_with_the_remedy():
    with pytest.raises(DataError, match=r"words='spaces' does not fit.*words='tokenizer'"):
        choose_words("spaces", RAW)
    assert choose_words("spaces", TOKENISED)[0] == "spaces"
    assert choose_words("tokenizer", TOKENISED)[0] == "tokenizer"


def test_abbreviations_do_not_make_tokenised_text_look_raw():
    assert measure_punctuation(["The U.S. and Mr. X of Acme Inc. agreed , etc. , at noon ."] * 5).attached == 0


def test_an_unknown_choice_is_an_error():
    with pytest.raises(ConfigError, match="words='commas'"):
        choose_words("commas", TOKENISED)


def test_the_kept_stretches_give_spacys_own_words(spacy_words):
    splitter = SpacySplitter()
    for text in RAW + TOKENISED + AWKWARD:
        assert splitter.words(text) == spacy_words(text)
        assert splitter.words(text) == spacy_words(text), "the second time, from memory"


def test_long_stretches_without_space_take_time_in_proportion_to_their_length(spacy_words):
    splitter = SpacySplitter()
    for stretch in ("(" * 20_000, "a" * 5_000, f"({'x.y,' * 2_000}).", '"' * 300 + "word" + "'" * 300):
        words = splitter.words(stretch)
        assert "".join(words) == stretch
    long = "(" + "well-known/" * 50 + "end)."
    assert splitter.words(long) == spacy_words(long), "as spaCy's where it is no run of punctuation"


@pytest.mark.skipif(not TEXT_FOLDER.is_dir(), reason="the shared text is not here")
def test_real_text_gives_spacys_own_words(spacy_words):
    splitter = SpacySplitter()
    for path in sorted(TEXT_FOLDER.glob("*.txt.xz")):
        with lzma.open(path, "rt", encoding="utf-8") as file:
            for _, line in zip(range(1_500), file, strict=False):
                assert splitter.words(line) == spacy_words(line)


def test_forgetting_what_was_kept_does_not_change_the_words(spacy_words, monkeypatch):
    monkeypatch.setattr(words_module, "CACHED_STRETCHES", 25)
    splitter = SpacySplitter()
    for text in RAW + TOKENISED + AWKWARD:
        assert splitter.words(text) == spacy_words(text)


@pytest.mark.parametrize("splitter", [SpaceSplitter(), SpacySplitter()], ids=["spaces", "tokenizer"])
def test_offsets_point_at_the_words_and_leave_out_nothing_but_spaces(splitter):
    if isinstance(splitter, SpacySplitter):
        pytest.importorskip("spacy")
    for text in RAW + TOKENISED + AWKWARD:
        words = splitter.words_with_offsets(text)
        assert [word.text for word in words] == splitter.words(text)
        assert all(text[word.start : word.end] == word.text for word in words)
        assert "".join(word.text for word in words) == "".join(text.split())


def test_all_callers_in_a_process_share_one_tokenizer():
    assert make_splitter("tokenizer", "en") is make_splitter("tokenizer", "en")
