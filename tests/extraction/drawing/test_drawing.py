"""Drawn sentences: what stands in them, and that nothing covers anything else."""

from __future__ import annotations

import colorsys
import random
import re
import xml.etree.ElementTree as ElementTree
from itertools import pairwise

import pytest

from spe_dist.extraction.corpora.corpus import Entity, Relation, Sentence
from spe_dist.extraction.drawing.layout import ARC_MARGIN, Layout, columns_of, lay_out, reach
from spe_dist.extraction.drawing.sentence import HUES, PAGE_STYLE, STYLE, colours_of, draw_sentence, page

WORDS = tuple("Kim Lee of Acme Corp lives in Oslo".split())
PERSON, COMPANY, CITY = Entity(0, 2, "Person"), Entity(3, 5, "Company"), Entity(7, 8, "City")
SENTENCE = Sentence(
    WORDS, (PERSON, COMPANY, CITY), (Relation("works_for", PERSON, COMPANY), Relation("lives_in", PERSON, CITY))
)


def texts(html: str, columns_class: str | None = None) -> list[str]:
    root = ElementTree.fromstring(html)
    svgs = [svg for svg in root.iter("svg") if columns_class is None or svg.get("class") == columns_class]
    return [text.text or "" for text in svgs[0].iter("text")]


def random_sentence(seed: int) -> Sentence:
    draw = random.Random(seed)
    words = tuple("w" * draw.randint(1, 9) for _ in range(draw.randint(1, 60)))
    starts = [draw.randrange(len(words)) for _ in range(draw.randint(0, 8))]
    entities = tuple(Entity(s, min(len(words), s + draw.randint(1, 6)), draw.choice(("A", "LongType"))) for s in starts)
    pairs = [(draw.choice(entities), draw.choice(entities)) for _ in range(draw.randint(0, 8) if entities else 0)]
    return Sentence(words, entities, tuple(Relation(draw.choice(("r", "of_a_kind")), *pair) for pair in pairs))


def test_words_types_and_relations_are_in_the_drawing():
    assert texts(draw_sentence(SENTENCE)) == [
        *("Person", "Company", "City"),
        *WORDS,
        *("works_for", "lives_in"),
    ]


def test_arrow_heads_stand_at_tails():
    layout = lay_out(SENTENCE, 100)
    by_type = {arc.relation.type: arc for arc in layout.arcs}
    assert (by_type["lives_in"].left_end, by_type["lives_in"].right_end) == ("head", "tail")
    backwards = Sentence(WORDS, (PERSON, CITY), (Relation("home_of", CITY, PERSON),))
    (arc,) = lay_out(backwards, 100).arcs
    assert (arc.left_end, arc.right_end) == ("tail", "head")
    assert draw_sentence(backwards).count("<polygon") == 1


def test_a_relation_between_rows_names_its_other_end_on_both():
    layout = lay_out(SENTENCE, 18)
    halves = [arc for arc in layout.arcs if arc.relation.type == "lives_in"]
    assert sorted((arc.row, arc.label, arc.left_end, arc.right_end) for arc in halves) == [
        (0, "lives_in (Oslo)", "head", None),
        (layout.rows - 1, "lives_in (Kim Lee)", None, "tail"),
    ]


def test_narrow_windows_have_a_drawing_of_their_own_where_rows_differ():
    assert draw_sentence(SENTENCE).count("<svg") == 1
    long = Sentence(WORDS * 4, SENTENCE.entities, SENTENCE.relations)
    drawn = draw_sentence(long)
    assert drawn.count("<svg") == 2
    assert texts(drawn, "wide")[3:35] == texts(drawn, "narrow")[3:35] == list(WORDS * 4)


def rectangles_of_words(layout: Layout) -> list[tuple[int, float, float]]:
    return [(word.row, word.x, word.x + word.width) for word in layout.words]


@pytest.mark.parametrize("columns", [20, 60, 104])
@pytest.mark.parametrize("seed", range(25))
def test_neither_words_nor_bands_nor_arcs_cover_each_other(seed, columns):
    layout = lay_out(random_sentence(seed), columns)
    words = sorted(rectangles_of_words(layout))
    assert all(a[0] < b[0] or a[2] < b[1] for a, b in pairwise(words))
    bands = sorted((s.row, box.level, s.left, s.right) for box in layout.boxes for s in box.segments)
    assert all(a[:2] < b[:2] or a[3] <= b[2] for a, b in pairwise(bands))
    arcs = sorted((arc.row, arc.level, *reach(arc)) for arc in layout.arcs)
    assert all(a[:2] < b[:2] or a[3] + ARC_MARGIN <= b[2] for a, b in pairwise(arcs))


@pytest.mark.parametrize("seed", range(25))
def test_everything_stands_inside_the_drawing_and_types_inside_their_bands(seed):
    layout = lay_out(random_sentence(seed), 60)
    assert all(word.x >= 0 and word.x + word.width <= layout.width for word in layout.words)
    assert all(reach(arc)[0] >= 0 and reach(arc)[1] <= layout.width for arc in layout.arcs)
    for box in layout.boxes:
        assert max(s.right - s.left for s in box.segments) >= columns_of(box.entity.type) * 6.6


def test_overlapping_entities_have_bands_on_levels_the_shortest_next_to_the_words():
    whole, part = Entity(0, 5, "Group"), Entity(3, 5, "Company")
    layout = lay_out(Sentence(WORDS, (whole, part)), 100)
    assert {box.entity: box.level for box in layout.boxes} == {whole: 1, part: 0}


def test_a_discontinuous_entity_has_a_part_for_each_fragment():
    gapped = Entity(0, 5, "Group", fragments=((0, 1), (3, 5)))
    (box,) = lay_out(Sentence(WORDS, (gapped,)), 100).boxes
    assert len(box.segments) == 2
    assert box.segments[0].right < box.segments[1].left


def test_duplicates_are_drawn_once_and_arguments_without_a_type_are_named():
    unmarked = Entity(7, 8, "")
    relation = Relation("lives_in", PERSON, unmarked)
    drawn = draw_sentence(Sentence(WORDS, (PERSON, PERSON), (relation, relation)))
    assert texts(drawn).count("Person") == texts(drawn).count("lives_in") == 1
    assert "no entity" in texts(drawn) and 'class="untyped"' in drawn


def test_everything_is_escaped():
    evil = Entity(0, 1, '<script>"')
    drawn = draw_sentence(Sentence(("<b>&'\"", "\x00x"), (evil,), (Relation("</svg>", evil, evil),)))
    assert texts(drawn) == ['<script>"', "<b>&'\"", "\u2400x", "</svg>"]
    assert "<script" not in drawn and "<b>" not in drawn
    whole = page("<title> & more", drawn)
    assert "<title>&lt;title&gt; &amp; more</title>" in whole


def test_wrong_and_missed_items_have_a_style_and_a_cross_not_colour_alone():
    drawn = draw_sentence(SENTENCE, mark=lambda item: "wrong" if item in (CITY, SENTENCE.relations[0]) else "")
    assert [text for text in texts(drawn) if "✗" in text] == ["✗ City", "✗ works_for"]
    assert drawn.count('class="wrong"') == 3  # box, arc, label


def test_probabilities_are_shown_to_the_pointer():
    drawn = draw_sentence(Sentence(WORDS, (Entity(0, 2, "Person", probability=0.98765),)))
    assert "<title>Person 0.988</title>" in drawn


def test_empty_sentences_and_words_wider_than_a_row_are_drawn():
    assert ElementTree.fromstring(draw_sentence(Sentence(()))).tag == "div"
    layout = lay_out(Sentence(("a", "x" * 300, "b"), (Entity(1, 2, "Long"),)), 40)
    assert [word.row for word in layout.words] == [0, 1, 2]
    assert layout.width > 300 * 8


def test_wide_characters_take_two_columns_and_combining_marks_none():
    assert (columns_of("東京"), columns_of("e\u0301"), columns_of("abc")) == (4, 1, 3)


def test_colours_are_the_same_for_the_same_types_and_differ_within_a_page():
    types = [f"type {i}" for i in range(len(HUES))]
    assert colours_of(types) == colours_of(reversed(types))
    assert len(set(colours_of(types).values())) == len(HUES)
    few = list(colours_of(["Generic", "Material", "Method", "Metric", "OtherScientificTerm", "Task"]).values())
    assert all(min((a - b) % 360, (b - a) % 360) >= 48 for i, a in enumerate(few) for b in few[:i])
    assert colours_of(["Loc"])["Loc"] == colours_of(["Loc", "Peop"])["Loc"]


def test_a_page_needs_nothing_from_elsewhere():
    whole = page("Drawn", draw_sentence(SENTENCE))
    assert not re.search(r"https?:|url\(|@import|<link|src=|<script", whole)
    assert "prefers-color-scheme: dark" in whole and 'name="viewport"' in whole


def luminance(hue: int, saturation: float, lightness: float) -> float:
    """Relative luminance of WCAG 2.1."""
    rgb = colorsys.hls_to_rgb(hue / 360, lightness, saturation)
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def lightness_of(style: str, selector: str) -> tuple[float, float]:
    found = re.search(rf"{re.escape(selector)}[^{{]*{{[^}}]*hsl\(var\(--hue\) (\d+)% (\d+)%\)", style)
    assert found, selector
    return int(found[1]) / 100, int(found[2]) / 100


def page_luminance(dark: bool) -> float:
    value = re.findall(r"--page: #(\w{6})", PAGE_STYLE)[dark]
    r, g, b = (int(value[i : i + 2], 16) / 255 for i in (0, 2, 4))
    hue, lightness, saturation = colorsys.rgb_to_hls(r, g, b)
    return luminance(round(hue * 360), saturation, lightness)


@pytest.mark.parametrize("dark", [False, True])
def test_texts_have_a_contrast_of_four_and_a_half_to_one_in_every_hue(dark):
    style = STYLE.split("@media (prefers-color-scheme: dark)")[dark]
    for hue in HUES:
        on_band = luminance(hue, *lightness_of(style, ".type")), luminance(hue, *lightness_of(style, ".band"))
        on_page = luminance(hue, *lightness_of(style, ".label")), page_luminance(dark)
        for pair in (on_band, on_page):
            assert (max(pair) + 0.05) / (min(pair) + 0.05) >= 4.5, (hue, pair)
