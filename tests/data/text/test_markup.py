"""Markup of Wikipedia's two forms is recognised, left out and counted."""

from __future__ import annotations

from collections import Counter

import pytest

from spe_dist.data.text.markup import MARKUP, UNKNOWN_MARKS, markup_remover, recognise_markup, without_markup

ARTICLE = [
    '<doc id="1" url="https://x" title="Rock &amp; Roll">',
    "Rock &amp; Roll",
    "",
    "<b>Rock</b> &amp; roll is 3 &lt; 4.",
    "Rock & Roll",
    "</doc>",
]


def test_articles_lose_tags_and_the_title_below_the_head_alone():
    assert recognise_markup(ARTICLE) == "wikiextractor"
    assert without_markup("wikiextractor", ARTICLE) == ["", "", "", "Rock & roll is 3 < 4.", "Rock & Roll", ""]


def test_wikitext_is_counted():
    skipped, noticed = Counter[str](), Counter[str]()
    remove = markup_remover("wikitext", skipped, noticed)
    assert remove("= = Heading = =") is None
    assert remove("A well @-@ known <unk> of 1 @,@ 200 and 3 @.@ 5 .") == "A well-known <unk> of 1,200 and 3.5 ."
    assert remove("x = y") == "x = y"
    assert skipped == {MARKUP: 1} and noticed == {UNKNOWN_MARKS: 1}


@pytest.mark.parametrize(
    "lines",
    [[], ["plain text"], ["= A heading of other text =", "no marks"], ["<p>HTML</p>"], ["a @-@ b"]],
)
def test_other_text_is_plain(lines):
    assert recognise_markup(lines) is None
