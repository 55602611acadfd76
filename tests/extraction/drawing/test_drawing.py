"""Drawn sentences: the text as it was, entities as nested pieces of it, relations, colours."""

from __future__ import annotations

import colorsys
import random
import re
import xml.etree.ElementTree as ElementTree
from importlib.resources import files

import pytest

from spe_dist.extraction.corpora.corpus import Entity, Relation, Sentence
from spe_dist.extraction.drawing.colours import HUES, colours_of
from spe_dist.extraction.drawing.pages import predictions_page
from spe_dist.extraction.drawing.sentence import Kinds, Piece, drawn_sentence
from spe_dist.extraction.predicting.results import result_of

WORDS = tuple("Kim Lee of Acme Corp lives in Oslo".split())
PERSON, COMPANY, CITY = Entity(0, 2, "Person"), Entity(3, 5, "Company"), Entity(7, 8, "City")
SENTENCE = Sentence(
    WORDS, (PERSON, COMPANY, CITY), (Relation("works_for", PERSON, COMPANY), Relation("lives_in", PERSON, CITY))
)


def page(*sentences: Sentence, **options) -> str:
    return predictions_page(sentences, **options)


def drawing(sentence: Sentence) -> ElementTree.Element:
    """The drawing of a page's first sentence, which is well formed XML but for entities of HTML."""
    (found,) = re.findall(r'<div class="drawn">.*?</div>', page(sentence), re.DOTALL)
    return ElementTree.fromstring(found)


def plain(element: ElementTree.Element) -> str:
    """What stands in the drawing, without the labels of entities."""
    if element.tag == "small":
        return element.tail or ""
    return (element.text or "") + "".join(map(plain, element)) + (element.tail or "")


def labels(element: ElementTree.Element) -> list[str]:
    return ["".join(small.itertext()) for small in element.iter("small")]


def text_of(pieces: list[Piece]) -> str:
    return "".join(piece.text + text_of(piece.inner) for piece in pieces)


def shape(pieces: list[Piece]) -> list:
    """The tree of pieces: texts, and (number of an entity, what is in it)."""
    return [piece.text if piece.entity is None else (piece.entity.number, shape(piece.inner)) for piece in pieces]


def drawn(*entities: Entity) -> list:
    sentence = Sentence(WORDS, entities)
    return shape(drawn_sentence(sentence, Kinds.of([sentence])).pieces)


def test_the_text_is_the_original_one_with_its_own_spacing():
    text = "Kim  Lee (of\tAcme\nCorp)."
    words = ("Kim", "Lee", "(", "of", "Acme", "Corp", ")", ".")
    spans, position = [], 0
    for word in words:
        position = text.index(word, position)
        spans.append((position, position + len(word)))
    sentence = Sentence(words, (Entity(0, 2, "P"), Entity(4, 6, "C")), text=text, char_spans=tuple(spans))
    paragraph = drawing(sentence).find("p")
    assert paragraph is not None and plain(paragraph) == "Kim  Lee (of Acme Corp)."  # line breaks are the window's
    assert [plain(mark) for mark in paragraph.iter("mark")] == ["Kim  Lee (of ", "Acme Corp)."]  # with their tails


def test_types_and_relations_are_in_the_drawing_also_for_readers_without_script():
    found = drawing(SENTENCE)
    assert labels(found) == ["Person", "Company", "City"]
    assert ["".join(item.itertext()) for item in found.iter("li")] == [
        "works_for: Kim Lee → Acme Corp",
        "lives_in: Kim Lee → Oslo",
    ]
    ends = [(item.get("data-h"), item.get("data-t")) for item in found.iter("li")]
    assert ends == [("0", "1"), ("0", "2")]


def test_probabilities_are_visible_and_exact_ones_shown_to_the_pointer():
    person, city = Entity(0, 2, "Person", probability=0.98765), Entity(7, 8, "City", probability=1.0)
    found = drawing(Sentence(WORDS, (person, city), (Relation("lives_in", person, city, 0.5),)))
    assert labels(found) == ["Person 99%", "City 100%"]
    assert [mark.get("title") for mark in found.iter("mark")] == ["Person 0.988", "City 1.000"]
    assert "".join(next(found.iter("li")).itertext()).startswith("lives_in 50%: ")


def test_entities_nest_and_one_that_crosses_another_is_cut_at_its_end():
    assert drawn(Entity(0, 5, "A"), Entity(3, 5, "B")) == [(0, ["Kim Lee of ", (1, ["Acme Corp"])]), " lives in Oslo"]
    assert drawn(Entity(0, 2, "A"), Entity(0, 2, "B")) == [(0, [(1, ["Kim Lee"])]), " of Acme Corp lives in Oslo"]
    assert drawn(Entity(0, 4, "A"), Entity(3, 7, "B")) == [
        (0, ["Kim Lee of ", (1, ["Acme"])]),
        (1, [" Corp lives in"]),
        " Oslo",
    ]


def test_a_discontinuous_entity_has_a_part_for_each_fragment_and_one_label():
    gapped = Entity(0, 5, "Group", fragments=((0, 1), (3, 5)))
    assert drawn(gapped) == [(0, ["Kim"]), " Lee of ", (0, ["Acme Corp"]), " lives in Oslo"]
    assert labels(drawing(Sentence(WORDS, (gapped,)))) == ["Group", "…"]


@pytest.mark.parametrize("seed", range(40))
def test_no_character_is_lost_or_doubled_and_every_entity_covers_its_words(seed):
    draw = random.Random(seed)
    words = tuple("".join(draw.choices("abc<&é東", k=draw.randint(1, 6))) for _ in range(draw.randint(1, 20)))
    entities = []
    for _ in range(draw.randint(0, 8)):
        start = draw.randrange(len(words))
        entities.append(Entity(start, draw.randint(start + 1, len(words)), draw.choice("AB")))
    sentence = Sentence(words, tuple(entities))
    result = drawn_sentence(sentence, Kinds.of([sentence]))
    assert text_of(result.pieces) == " ".join(words)
    covered: dict[int, str] = {}

    def collect(pieces: list[Piece]) -> None:
        for piece in pieces:
            if piece.entity is not None:
                covered[piece.entity.number] = covered.get(piece.entity.number, "") + text_of(piece.inner)
            collect(piece.inner)

    collect(result.pieces)
    ordered = sorted(set(entities), key=lambda e: (e.start, -e.end, e.type))
    assert covered == {i: " ".join(words[e.start : e.end]) for i, e in enumerate(ordered)}


def test_duplicates_are_drawn_once_and_arguments_without_a_type_are_named():
    relation = Relation("lives_in", PERSON, Entity(7, 8, ""))
    found = drawing(Sentence(WORDS, (PERSON, PERSON), (relation, relation)))
    assert labels(found) == ["Person", "no entity"] and len(list(found.iter("li"))) == 1
    assert [mark.get("class") for mark in found.iter("mark")] == ["t1", "t0 untyped"]


def test_everything_is_escaped():
    evil = Entity(0, 1, '<script>"')
    text = page(Sentence(("<b>&'\"", "\x00x"), (evil,), (Relation("</svg>", evil, evil),)), title="<title> & more")
    assert "<title>&lt;title&gt; &amp; more</title>" in text and "␀x" in text
    assert '<script>"' not in text and "<b>&'" not in text and "</svg>" not in text
    assert page(Sentence(()), model="<i>").count("<i>") == 0


def test_wrong_items_have_a_style_and_a_cross_not_colour_alone():
    result = drawn_sentence(SENTENCE, Kinds.of([SENTENCE]), lambda item: "wrong" if item is CITY else "")
    assert [piece.entity.mark for piece in result.pieces if piece.entity] == ["", "", "wrong"]


def test_the_legend_names_types_with_their_counts_and_the_page_its_model():
    text = page(SENTENCE, SENTENCE, model="conll04/model")
    chips = re.findall(r'class="chip t(\d+)".*?value="(\d+)"> (\w+) <span>(\d+)</span>', text)
    assert [(name, count) for _, _, name, count in chips] == [
        *(("City", "2"), ("Company", "2"), ("Person", "2")),
        *(("lives_in", "2"), ("works_for", "2")),
    ]
    assert all(number == value for number, value, _, _ in chips)
    assert "Model <b>conll04/model</b>. 2 sentences, 6 entities, 4 relations." in text


def test_a_filter_by_probability_is_offered_where_there_are_probabilities():
    assert 'type="range"' not in page(SENTENCE)
    assert page(Sentence(WORDS, (Entity(0, 2, "Person", probability=0.5),))).count('type="range"') == 1  # no relations


def test_empty_sentences_and_empty_pages_are_drawn():
    assert plain(drawing(Sentence(()))) == ""
    assert "No sentences." in page()


def test_what_an_extractor_gives_is_drawn_as_it_is():
    person, city = Entity(0, 2, "Person", probability=0.75), Entity(7, 8, "City", probability=0.5)
    spans = tuple((sum(map(len, WORDS[:i])) + i, sum(map(len, WORDS[: i + 1])) + i) for i in range(len(WORDS)))
    relations = (Relation("lives_in", person, city, 0.25),)
    found = Sentence(WORDS, (person, city), relations, text=" ".join(WORDS), char_spans=spans)
    assert page(result_of(found, start=100)) == page(found)


def test_colours_are_the_same_for_the_same_types_and_differ_within_a_page():
    types = [f"type {i}" for i in range(len(HUES))]
    assert colours_of(types) == colours_of(reversed(types))
    assert len(set(colours_of(types).values())) == len(HUES)
    few = list(colours_of(["Generic", "Material", "Method", "Metric", "OtherScientificTerm", "Task"]).values())
    assert all(min((a - b) % 360, (b - a) % 360) >= 48 for i, a in enumerate(few) for b in few[:i])
    assert colours_of(["Loc"])["Loc"] == colours_of(["Loc", "Peop"])["Loc"]


def test_a_page_needs_nothing_from_elsewhere():
    whole = page(SENTENCE).replace("http://www.w3.org/2000/svg", "")  # a name, not an address
    assert not re.search(r"https?:|url\(|@import|<link|src=", whole)
    assert "prefers-color-scheme: dark" in whole and 'name="viewport"' in whole


def test_a_page_of_300_long_sentences_stays_under_a_megabyte_and_a_half():
    draw = random.Random(0)
    words = tuple("w" * draw.randint(2, 9) for _ in range(40))
    entities = tuple(Entity(i, i + 2, "OtherScientificTerm", probability=0.5) for i in range(0, 40, 4))
    pairs = [draw.sample(entities, 2) for _ in range(12)]
    sentence = Sentence(words, entities, tuple(Relation("EVALUATE-FOR", *pair, 0.5) for pair in pairs))
    assert len(page(*[sentence] * 300).encode()) < 1_500_000


def luminance(hue: int, saturation: float, lightness: float) -> float:
    """Relative luminance of WCAG 2.1."""
    rgb = colorsys.hls_to_rgb(hue / 360, lightness, saturation)
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


STYLE = files("spe_dist.extraction.drawing").joinpath("templates", "page.css").read_text(encoding="utf-8")


def tone(name: str, dark: bool) -> tuple[float, float]:
    """Saturation and lightness of one of the colours that follow a type's hue."""
    saturation, lightness = re.findall(rf"--{name}: (\d+)% (\d+)%", STYLE)[dark]
    return int(saturation) / 100, int(lightness) / 100


def page_luminance(name: str, dark: bool) -> float:
    value = re.findall(rf"--{name}: #(\w{{6}})", STYLE)[dark]
    r, g, b = (int(value[i : i + 2], 16) / 255 for i in (0, 2, 4))
    hue, lightness, saturation = colorsys.rgb_to_hls(r, g, b)
    return luminance(round(hue * 360), saturation, lightness)


@pytest.mark.parametrize("dark", [False, True])
def test_texts_have_a_contrast_of_four_and_a_half_to_one_in_every_hue(dark):
    for hue in HUES:
        on_band = luminance(hue, *tone("type", dark)), luminance(hue, *tone("band", dark))
        on_box = page_luminance("text", dark), luminance(hue, *tone("box", dark))
        on_page = luminance(hue, *tone("label", dark)), page_luminance("page", dark)
        for pair in (on_band, on_box, on_page, (page_luminance("dim", dark), page_luminance("page", dark))):
            assert (max(pair) + 0.05) / (min(pair) + 0.05) >= 4.5, (hue, pair)
        arc = luminance(hue, *tone("arc", dark)), page_luminance("page", dark)
        assert (max(arc) + 0.05) / (min(arc) + 0.05) >= 3, (hue, arc)  # WCAG: what is no text
