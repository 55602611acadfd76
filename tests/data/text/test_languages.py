"""Words and sentences of languages other than English, and which language a text is in."""

# ruff: noqa: RUF001

from __future__ import annotations

from importlib.util import find_spec

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from spe_dist.data.text import languages
from spe_dist.data.text.languages import LANGUAGES, SPACY_LANGUAGES, check_language, describe_language, language_of
from spe_dist.data.text.sentences import split_sentences
from spe_dist.data.text.words import SpacySplitter, make_splitter, tokenizer_of
from spe_dist.errors import ConfigError

spacy = pytest.importorskip("spacy")


def sentences(text: str, language: str = "auto") -> list[str]:
    return [text[words[0].start : words[-1].end] for words in split_sentences(text, language)]


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("A street in Köln, with “quotes” – and α.", "en"),
        ("", "en"),
        ("1664 – 1700", "en"),
        ("Город стоит на реке.", "ru"),
        ("المدينة على النهر", "ar"),
        ("यह शहर नदी के किनारे है।", "hi"),
        ("使用TensorFlow和PyTorch训练模型。", "zh"),
        ("The kanji for Tokyo is 東京都.", "en"),
        ("東京大学の学生", "ja"),
        ("เมืองนี้ตั้งอยู่", "th"),
        ("서울은 도시이다.", "ko"),
        ("ქალაქი", "xx"),
        ("Η πόλη είναι εδώ.", "el"),
    ],
)
def test_the_script_of_most_letters_tells_the_language(text, language):
    assert language_of(text) == language
    assert language_of(text, "de") == "de"


def test_a_letter_of_another_script_is_never_passed_over():
    for first, last, language, _ in languages._SCRIPTS:
        letters = [chr(code) for code in range(first, last + 1) if chr(code).isalpha()]
        if language != "en":
            assert letters and all(languages._OTHER_LETTER.search(letter) for letter in letters), hex(first)


def test_an_unknown_language_is_refused_with_those_there_are():
    with pytest.raises(ConfigError, match=r"language='chinese' is unknown; choose auto .* zh; xx is for any"):
        check_language("chinese")
    with pytest.raises(ConfigError, match="language='deu'"):
        make_splitter("tokenizer", "deu")


def test_the_languages_of_a_sample_are_named_by_their_share():
    assert describe_language(["Город."] * 3 + ["A town."]) == (
        "auto (by the script of each text in a sample: ru 75%, en 25%)"
    )
    assert describe_language(["Город."], "uk") == "uk (as asked)"


@pytest.mark.parametrize(
    ("text", "language", "expected"),
    [
        # Chinese and Japanese: no spaces, no capitals, quotes that close behind the end or open the next sentence
        ("这座城市位于河边。它建于1664年！是吗？", "auto", ["这座城市位于河边。", "它建于1664年！", "是吗？"]),
        ("他说：「来了。」「好。」她答。", "auto", ["他说：「来了。」", "「好。」", "她答。"]),
        ("“你来吗？”他问。", "auto", ["“你来吗？”", "他问。"]),
        ('"来了。"他说。"好。"', "auto", ['"来了。"', "他说。", '"好。"']),
        ("他来了，（见图3。）完。", "auto", ["他来了，（见图3。）", "完。"]),
        ("真的！！是吗……好。", "auto", ["真的！！", "是吗……", "好。"]),
        ("“好。”，他说。", "auto", ["“好。”，他说。"]),
        ("この町は川のほとりにあります。今日は晴れ。", "auto", ["この町は川のほとりにあります。", "今日は晴れ。"]),
        # scripts with case: abbreviations, lower case goes on, other quotes
        ("А. С. Пушкин родился в 1799 г. в Москве. См. рис. 3.", "auto", ["А. С. Пушкин родился в 1799 г. в Москве.", "См. рис. 3."]),  # noqa: E501
        ("«Нет!» «Да!» Он ушёл… Она тоже.", "auto", ["«Нет!»", "«Да!»", "Он ушёл…", "Она тоже."]),
        ("Am 3. Mai kam er mit Nr. 7. Er ging 1999. „Komm!“ Sie kam.", "de", ["Am 3. Mai kam er mit Nr. 7. Er ging 1999.", "„Komm!“", "Sie kam."]),  # noqa: E501
        ("¿Qué? ¡No! Sr. Gómez, pág. 3.", "es", ["¿Qué?", "¡No!", "Sr. Gómez, pág. 3."]),
        ("« Si. » È lui.", "it", ["« Si. »", "È lui."]),
        ("Τι είναι; Αυτό.", "auto", ["Τι είναι;", "Αυτό."]),
        # scripts without case
        ("قال د. أحمد: هل تأتي؟ لا. عام 1664. نعم.", "auto", ["قال د. أحمد: هل تأتي؟", "لا.", "عام 1664.", "نعم."]),
        ("यह 1664 में बसा था। डॉ. शर्मा आए।यह भी।", "auto", ["यह 1664 में बसा था।", "डॉ. शर्मा आए।", "यह भी।"]),
        ("یہ شہر ہے۔اس میں لوگ ہیں۔", "ur", ["یہ شہر ہے۔", "اس میں لوگ ہیں۔"]),
        ("서울은 도시이다. 사람이 많다.", "auto", ["서울은 도시이다.", "사람이 많다."]),
        ("ქალაქი დიდია. ის ძველია.", "auto", ["ქალაქი დიდია.", "ის ძველია."]),
    ],
)  # fmt: skip
def test_sentences_of_other_languages_end_where_a_reader_ends_them(text, language, expected):
    assert sentences(text, language) == expected


def test_thai_ends_at_a_space_behind_some_clauses_but_not_beside_a_number():
    clause = "เมืองนี้ตั้งอยู่ริมแม่น้ำ"
    text = " ".join([clause, clause, "1664", clause, clause, clause])
    assert sentences(text) == [" ".join([clause, clause, "1664", clause]), f"{clause} {clause}"]
    assert sentences(clause) == [clause]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("GPT-4模型「来了……」1664年。", "GPT-4 模 型 「 来 了 … … 」 1664 年 。"),
        ("他说don’t，价格3.5%。", "他 说 do n’t ， 价 格 3.5 % 。"),
        ("ページ々東京", "ペ ー ジ 々 東 京"),
        ("นี้ แม่น้ำ ๑๒", "นี้ แ ม่ น้ำ ๑๒"),
        ("ភាសាខ្មែរ។", "ភា សា ខ្មែ រ ។"),
        ("မြန်မာ။", "မြ န် မာ ။"),
    ],
)
def test_characters_are_words_where_a_script_has_no_spaces(text, words):
    assert make_splitter("tokenizer").words(text) == words.split()


def test_characters_of_chinese_are_those_that_berts_own_tokenizer_cuts():
    from tokenizers.normalizers import BertNormalizer
    from tokenizers.pre_tokenizers import BertPreTokenizer

    text = "这座城市（1664年）位于河边，很美。𠀀字！"
    normalised = BertNormalizer(lowercase=False).normalize_str(text)
    assert tokenizer_of("zh").words(text) == [word for word, _ in BertPreTokenizer().pre_tokenize_str(normalised)]


@pytest.mark.parametrize("language", ["de", "ru", "it", "ar", "ko"])
def test_words_of_a_language_are_those_of_spacys_blank_tokenizer(language):
    text = "А. С. Пушкин (1799) C'est l'homme z.B. Dr. Müller, 3 km! 서울은 '네'라고. المدينة، نعم don't x-y www.a.org"
    config = {"nlp": {"tokenizer": {"@tokenizers": "spacy.Tokenizer.v1"}}}
    tokenizer = spacy.blank(language, config=config).tokenizer
    splitter = SpacySplitter(language)
    for _ in range(2):  # the second time from memory
        assert splitter.words(text) == [token.text for token in tokenizer(text) if not token.is_space]


def test_every_language_has_a_tokenizer_without_a_further_package():
    assert set(LANGUAGES) > SPACY_LANGUAGES
    assert all(find_spec(f"spacy.lang.{language}") for language in SPACY_LANGUAGES)
    for language in ("vi", "ko", "yo", "xx", "ja", "bo"):  # for some of them spaCy names a package
        assert tokenizer_of(language).words("A word, 1664.") == ["A", "word", ",", "1664", "."]


@given(
    st.text(st.sampled_from("aBя.!?,;。，「」“”\"'（1२ئ؟।हैกี่ あ漢…¿«» \n"), max_size=60),
    st.sampled_from(["auto", "en", "zh", "ru", "hi", "th", "it"]),
)
@example("\u0e35\n1", "zh")  # a vowel sign without its letter
@settings(max_examples=200, deadline=None)
def test_nothing_of_a_text_but_space_is_lost_in_any_language(text, language):
    found = [word for words in split_sentences(text, language) for word in words]
    assert all(text[word.start : word.end] == word.text for word in found)
    assert "".join(word.text for word in found) == "".join(text.split())
    assert [word.text for word in found] == make_splitter("tokenizer", language).words(text)
