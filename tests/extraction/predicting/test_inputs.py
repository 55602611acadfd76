"""Prediction and shards read the same sentences and words in the same text."""

# ruff: noqa: RUF001

from __future__ import annotations

import json
import lzma
import textwrap
from collections import Counter
from itertools import islice, pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from project import SHARED
from texts import read

from spe_dist.data.build.reading import choose_reader
from spe_dist.data.build.settings import BuildSettings
from spe_dist.data.text.files import read_parts
from spe_dist.data.text.lines import Skips
from spe_dist.data.text.markup import markup_remover

CASES = SHARED / "cases" / "text"
WIKIPEDIA = SHARED / "data" / "text" / "wiki_good_featured.txt.xz"


def words_of_shards(path: Path, **choices: str) -> list[list[str]]:
    reader, _ = choose_reader([path], BuildSettings(**choices))
    parts = read_parts([path], reader.break_at, 100_000, chunks=reader.chunks)
    return [words for part in parts for _, words in reader.sentences(part, Skips(), Counter())]


def words_of_prediction(path: Path, **choices: object) -> list[list[str]]:
    return [list(sentence.words) for _, sentence in read(path, **choices)]


def check_same(path: Path) -> list[list[str]]:
    found = words_of_prediction(path, format="text")
    assert words_of_shards(path, unit="documents", words="tokenizer", format="text") == found
    return found


@pytest.mark.skipif(not CASES.is_dir(), reason="the shared cases are not here")
@pytest.mark.parametrize("path", sorted(CASES.glob("*.txt")) or [None], ids=lambda path: path and path.stem)
def test_shards_and_prediction_agree_on_every_shared_case(path):
    assert check_same(path)


@pytest.mark.skipif(not CASES.is_dir(), reason="the shared cases are not here")
@pytest.mark.parametrize(
    ("name", "field", "documents"),
    [
        ("array.json", "text", 280),
        ("array_indented.json", "text", 280),
        ("strings.jsonl", "text", 280),
        ("nested.jsonl", "body.paragraphs", 280),
        ("table.csv", "text", 280),
        ("wiki_00", "text", 60),
    ],
)
def test_shards_and_prediction_agree_on_records_and_articles(name, field, documents):
    located = read(CASES / name, text_field=field)
    assert [place.document for place, _ in located][:: len(located) // documents] == list(range(documents))
    found = [list(sentence.words) for _, sentence in located]
    assert words_of_shards(CASES / name, unit="documents", words="tokenizer", text_field=field) == found


@pytest.mark.skipif(not CASES.is_dir(), reason="the shared cases are not here")
@pytest.mark.parametrize(("name", "form"), [("wiki_00", "wikiextractor"), ("wikitext.txt", "wikitext")])
def test_offsets_in_articles_count_in_their_text_without_markup(name, form):
    located = read(CASES / name)
    lines = [line.strip() for line in (CASES / name).read_text().split("\n")]
    begins = [i for i, line in enumerate(lines) if line.startswith("<doc" if form == "wikiextractor" else "= R")]
    remove = markup_remover(form, Counter(), Counter())
    cleaned = [remove(line) or "" if line else "" for line in lines]
    texts = ["\n".join(cleaned[a:b]) for a, b in pairwise([*begins, len(lines)])]
    for place, sentence in located:
        assert texts[place.document][place.start :].startswith(sentence.text)
        assert sentence.text in cleaned[place.line - 1]
        assert place.id == (str(place.document) if form == "wikiextractor" else None)
    per_article = len(located) // len(texts)
    assert [place.sentence for place, _ in located] == [*range(per_article)] * len(texts) and len(texts) > 50


@pytest.mark.skipif(not CASES.is_dir(), reason="the shared cases are not here")
@pytest.mark.parametrize(
    ("name", "sentences", "words"),
    [
        ("russian_paragraphs", 720, "Город стоит на реке ."),
        ("arabic_paragraphs", 480, "تقع المدينة على النهر ."),
        ("hindi_paragraphs", 360, "यह शहर नदी के किनारे है ।"),
        ("chinese_paragraphs", 720, "这 座 城 市 位 于 河 边 。"),
        ("japanese_paragraphs", 360, "こ の 町 は 川 の ほ と り に あ り ま す 。"),
        ("thai_paragraphs", 120, "เ มื อ ง นี้ ตั้ ง อ ยู่ ริ ม แ ม่ น้ำ"),
        ("abbreviations", 2, "Smith et al . ( 2019 ) moved to the U.S."),
    ],
)
def test_every_language_is_read_alike_without_a_setting(name, sentences, words):
    found = words_of_prediction(CASES / f"{name}.txt")
    assert words_of_shards(CASES / f"{name}.txt") == found and len(found) == sentences
    assert " ".join(found[0]).startswith(words)


def test_wrapped_text_without_capital_letters_is_read_alike_without_a_setting(tmp_path):
    sentences = [
        "这座城市位于河边，最早由商人在1664年建立。",
        "今天这里有十万人居住。",
        "夏天有很多游客来访！",
        "新桥是最近建成的。",
    ]
    text = "".join(sentences * 5)
    path = tmp_path / "a.txt"
    path.write_text("\n".join(textwrap.wrap(text, 36)), encoding="utf-8")
    found = words_of_prediction(path)
    assert ["".join(words) for words in found] == sentences * 5
    assert words_of_shards(path, drop_duplicates="none") == found


def test_the_language_is_a_setting_of_both(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("Am 3. Mai kam er. Er ging z.B. nach Köln.\n\nNoch eine Zeile, mit Nr. 7.\n", encoding="utf-8")
    found = words_of_prediction(path, language="de")
    assert words_of_shards(path, unit="documents", words="tokenizer", language="de") == found
    assert found[:2] == [["Am", "3.", "Mai", "kam", "er", "."], ["Er", "ging", "z.B.", "nach", "Köln", "."]]
    assert words_of_prediction(path)[0] == ["Am", "3", "."]


def test_abbreviations_end_no_sentence_in_shards_and_prediction(tmp_path):
    (tmp_path / "a.txt").write_text("Smith et al. (2019) moved to the U.S. He lives near Fig. 3 of the map.\n")
    assert [" ".join(words) for words in check_same(tmp_path / "a.txt")] == [
        "Smith et al . ( 2019 ) moved to the U.S.",
        "He lives near Fig . 3 of the map .",
    ]


@pytest.mark.skipif(not WIKIPEDIA.is_file(), reason="the shared text is not here")
@pytest.mark.parametrize("form", ["paragraphs", "wrapped", "wrapped_crlf", "old_mac", "json"])
def test_shards_and_prediction_agree_on_real_text_in_every_form(tmp_path, form):
    with lzma.open(WIKIPEDIA, "rt", encoding="utf-8") as file:
        texts = "".join(islice(file, 600)).split("\n\n")
    documents = [" ".join(text.split("\n")) for text in texts]
    path = tmp_path / ("a.jsonl" if form == "json" else "a.txt")
    wrapped = [textwrap.fill(document, 70) for document in documents]
    if form == "json":
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in wrapped))
        found = words_of_prediction(path)
        assert words_of_shards(path, unit="documents", words="tokenizer") == found
    else:
        text = "\n\n".join(documents if form == "paragraphs" else wrapped)
        end = {"wrapped_crlf": "\r\n", "old_mac": "\r"}.get(form, "\n")
        path.write_bytes(text.replace("\n", end).encode())
        found = check_same(path)
    assert len(found) > 500


@given(st.text(st.sampled_from("aB .!?,;\n\r\t\"'()\x00\u2028\u00a0\ufeff\u0301\U0001f600\u00e90-"), max_size=120))
@settings(max_examples=100, deadline=None)
def test_shards_and_prediction_agree_on_any_text(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "same.txt"
    path.write_bytes(text.encode())
    check_same(path)
