"""Wrapped lines are told from lines that stand by themselves, and joined."""

# ruff: noqa: RUF001

from __future__ import annotations

import random
import re
import textwrap
from itertools import accumulate, chain

import pytest

from spe_dist.data.text.lines import Line
from spe_dist.data.text.paragraphs import columns, full_line_columns, joined, paragraphs, text_paragraphs
from spe_dist.data.text.sentences import split_sentences

PROSE = (
    "The bridge over the river was opened in 1600, and the storm was broken. The poet met a quiet friend, who had "
    "never been seen in the city before. Both of them left it in the same year, and nobody knows where they went. "
)


def join(lines: list[str], full: int | None) -> list[str]:
    numbered = (Line(i, 0, line) for i, line in enumerate(lines))
    return [joined(found).replace("\n", " ") for found in paragraphs(numbered, full) if found]


@pytest.mark.parametrize("width", [30, 60, 75, 100])
def test_text_of_any_width_is_wrapped(width):
    lines = textwrap.wrap(PROSE * 5, width)
    full = full_line_columns(lines)
    assert full is not None and full < width
    assert join(lines, full) == [" ".join(lines)]


@pytest.mark.parametrize(
    "lines",
    [
        ["Parliament votes on the budget of the coming year", "Stocks fall in Tokyo after the news"] * 5,
        ["This is sentence number 17 ."] * 50,
        ["Who else is up? Cannot wait for the match", "Monday again", "New shoes, new me :)", "we won! what a day"]
        * 20,
        ["hi all", "who is there? i am", "nobody it seems. well then i go home now", "bye"] * 20,
        [PROSE, PROSE * 2, PROSE * 3] * 5,
        ["- " + PROSE[:60], "- " + PROSE[60:110], "- milk"] * 9,
        [],
        ["one line"],
    ],
    ids=["headlines", "sentences", "posts", "chat", "paragraphs", "list", "nothing", "one"],
)
def test_lines_without_a_width_stand_by_themselves(lines):
    assert full_line_columns(lines) is None
    assert join(lines, None) == lines


def test_the_choice_of_the_user_counts():
    assert full_line_columns(["a b"] * 3, "wrapped") is not None
    assert full_line_columns(textwrap.wrap(PROSE * 5, 60), "separate") is None


def test_headings_blank_lines_and_items_of_lists_end_a_paragraph():
    lines = [
        "A Heading",
        "A line of the usual length which goes",
        "on here.",
        "",
        "1. An item of the usual length, too,",
    ]
    assert join([*lines, "and 2", "* another"], 20) == [
        "A Heading",
        "A line of the usual length which goes on here.",
        "1. An item of the usual length, too, and 2",
        "* another",
    ]


def test_paragraphs_of_a_text_stand_where_it_says():
    text = "\n".join(["Title", *textwrap.wrap(PROSE * 2, 50), "", "  A last one."])
    found = list(text_paragraphs(text))
    assert all(text[start : start + len(part)] == part for start, part in found)
    assert [part.split()[0] for _, part in found] == ["Title", "The", "A"]


SENTENCES = {
    "zh": "这座城市位于河边，最早由商人在1664年建立。今天这里有十万人居住，其中不少是学生。夏天有很多游客来访！"
    "新桥是最近建成的，由IBM公司设计。市长说，这座桥将把两岸的居民联系在一起。谁会想到呢？老人们还记得从前的渡船。",
    "ja": "この町は川のほとりにあります。今日では十万人が住んでいて、学生も多いです。夏になると、たくさんの人が来ます。"
    "冬には川が凍り、子どもたちが氷の上で遊びます。「とても便利になった。」と市長は話しました。",
    "ar": "تقع المدينة على النهر الكبير. أسسها التجار عام 1664. يعيش هنا اليوم مئة ألف نسمة، منهم كثير من الطلاب. "
    "يأتي السياح في الصيف من كل البلدان. هل تعرف هذه المدينة؟ في الشتاء يتجمد النهر ويلعب الأطفال على الجليد.",
    "he": "העיר שוכנת על גדת הנהר הגדול. סוחרים ייסדו אותה בשנת 1664. כיום גרים בה מאה אלף איש, ורבים מהם סטודנטים. "
    "בקיץ באים תיירים מכל העולם. בחורף הנהר קופא והילדים משחקים על הקרח.",
    "hi": "यह शहर नदी के किनारे है। इसे व्यापारियों ने 1664 में बसाया था। आज यहाँ एक लाख लोग रहते हैं, जिनमें बहुत से छात्र हैं। "
    "गर्मियों में यहाँ बहुत से पर्यटक आते हैं। सर्दियों में नदी जम जाती है और बच्चे बर्फ पर खेलते हैं।",
    "ko": "이 도시는 강가에 있다. 상인들이 1664년에 도시를 세웠다. 오늘날에는 십만 명이 살고 있으며 학생도 많다. "
    "여름에는 많은 관광객이 찾아온다. 겨울에는 강이 얼고 아이들이 얼음 위에서 논다.",
    "ru": "ГОРОД СТОИТ НА РЕКЕ. ЕГО ОСНОВАЛИ В 1664 ГОДУ КУПЦЫ. СЕГОДНЯ ЗДЕСЬ ЖИВЁТ СТО ТЫСЯЧ ЧЕЛОВЕК. ЛЕТОМ СЮДА "
    "ПРИЕЗЖАЮТ ТУРИСТЫ ИЗ ВСЕХ СТРАН. ЗИМОЙ РЕКА ЗАМЕРЗАЕТ, И ДЕТИ ИГРАЮТ НА ЛЬДУ.",
}
THAI_WORDS = [  # with the space behind a clause
    word.replace("_", " ")
    for word in (
        "เมือง นี้ ตั้ง อยู่ ริม แม่น้ำ สาย ใหญ่_ พ่อค้า ก่อตั้ง เมือง ใน ปี_ ปัจจุบัน มี ผู้คน อาศัย อยู่ หนึ่ง แสน คน_ ใน ฤดูร้อน มี นักท่องเที่ยว "
        "มา เยือน เป็น จำนวน มาก_ ฤดูหนาว แม่น้ำ กลาย เป็น น้ำแข็ง_ สะพาน ใหม่ เพิ่ง สร้าง เสร็จ เมื่อ ไม่ นาน มา นี้_"
    ).split()
]


def sentences_of(language: str) -> list[str]:
    return re.split(r"(?<=[.\u3002\u0964\u061f\uff1f\uff01])(?!\u300d) ?", SENTENCES[language])[:-1]


def shuffled(language: str, count: int, seed: int = 0) -> str:
    space = "" if language in ("zh", "ja") else " "
    return space.join(random.Random(seed).choices(sentences_of(language), k=count))


def wrapped(units: list[str], width: int, measure=columns) -> list[str]:
    lines = [""]
    for unit in units:
        if measure((lines[-1] + unit).rstrip()) > width:
            lines.append("")
        lines[-1] += unit
    return [line.strip() for line in lines]


@pytest.mark.parametrize("width", [36, 70, 100])
@pytest.mark.parametrize("language", SENTENCES)
def test_wrapped_text_of_any_script_is_joined_and_gives_the_sentences_of_unwrapped_text(language, width):
    text = shuffled(language, 60)
    expected = [[word.text for word in words] for words in split_sentences(text)]
    units = re.findall(r"[\x21-\x7e]+|." if language in ("zh", "ja") else r"\S+ ?", text)
    for measure in (columns, len):
        lines = wrapped(units, width, measure)
        assert full_line_columns(lines) is not None
        whole = "\n".join(lines)
        found = [(start, words) for start, part in text_paragraphs(whole) for words in split_sentences(part)]
        assert [[word.text for word in words] for _, words in found] == expected
        assert all(whole[start + w.start : start + w.end] == w.text for start, words in found for w in words)


@pytest.mark.parametrize("width", [40, 70])
def test_thai_that_is_wrapped_between_words_is_joined_without_spaces(width):
    text = "".join(THAI_WORDS * 8)
    words = [word for sentence in split_sentences(text) for word in sentence]
    at_spaces = {i for i in range(1, len(words)) if words[i - 1].end < words[i].start}
    lines = wrapped(THAI_WORDS * 8, width)
    assert full_line_columns(lines) is not None
    ((_, part),) = text_paragraphs("\n".join(lines))
    found = list(split_sentences(part))
    assert [word.text for word in chain(*found)] == [word.text for word in words]
    assert len(found) > 5 and set(accumulate(map(len, found[:-1]))) <= at_spaces


@pytest.mark.parametrize("language", SENTENCES)
def test_posts_of_any_script_stay_one_a_line(language):
    rng = random.Random(1)
    posts = [shuffled(language, rng.choice((1, 1, 1, 2, 3, 4)), seed) for seed in range(100)]
    assert full_line_columns(posts) is None
    assert full_line_columns([post[:-1] for post in posts]) is None  # without the last full stop
    assert full_line_columns([shuffled(language, 1, seed)[:-1] for seed in range(100)]) is None
    assert full_line_columns([shuffled(language, rng.randint(4, 25), seed) for seed in range(100)]) is None


def test_thai_headlines_of_two_clauses_stay_one_a_line():
    rng = random.Random(2)
    words = [word.strip() for word in THAI_WORDS]
    halves = [["".join(rng.choices(words, k=rng.randint(5, 7))) for _ in range(2)] for _ in range(100)]
    assert full_line_columns(map(" ".join, halves)) is None
