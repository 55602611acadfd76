"""Wrapped lines are told from lines that stand by themselves, and joined."""

from __future__ import annotations

import textwrap

import pytest

from spe_dist.data.text.lines import Line
from spe_dist.data.text.paragraphs import full_line_characters, joined, paragraphs, text_paragraphs

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
    full = full_line_characters(lines)
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
    assert full_line_characters(lines) is None
    assert join(lines, None) == lines


def test_the_choice_of_the_user_counts():
    assert full_line_characters(["a b"] * 3, "wrapped") is not None
    assert full_line_characters(textwrap.wrap(PROSE * 5, 60), "separate") is None


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
