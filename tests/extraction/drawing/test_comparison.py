"""Two systems side by side: who finds what, and the page that shows it."""

from __future__ import annotations

import html
import re
from html.parser import HTMLParser

import pytest

from spe_dist.extraction.corpora.corpus import Corpus, CrossEntity, CrossRelation, Document, Entity, Relation, Sentence
from spe_dist.extraction.drawing.comparison_page import comparison_page
from spe_dist.extraction.scoring.comparison import Found, WrongMarks, choose_sentences, compare_systems

WORDS = tuple("Kim Lee of Acme Corp lives in Oslo".split())
KIM, LEE = Entity(0, 1, "Person"), Entity(1, 2, "Person")
ACME, OSLO = Entity(3, 5, "Company"), Entity(7, 8, "City")
WORKS, LIVES = Relation("works_for", KIM, ACME), Relation("lives_in", KIM, OSLO)


def corpus(*sentences: Sentence) -> Corpus:
    return Corpus(tuple(Document(str(i), (sentence,)) for i, sentence in enumerate(sentences)))


GOLD = corpus(
    Sentence(WORDS, (KIM, ACME, OSLO), (WORKS, LIVES)),
    Sentence(WORDS, (KIM,)),
    Sentence(WORDS),
)
A = corpus(
    Sentence(WORDS, (KIM, ACME, LEE), (WORKS, Relation("knows", LEE, KIM))),
    Sentence(WORDS, (KIM,)),
    Sentence(WORDS, (LEE,)),
)
B = corpus(
    Sentence(WORDS, (KIM, OSLO, LEE), (Relation("lives_in", OSLO, KIM),)),
    Sentence(WORDS, (KIM,)),
    Sentence(WORDS, (LEE,)),
)


def systems(**options):
    return compare_systems(GOLD, A, B, ("BERT", "SPE"), draws=50, test_draws=50, **options)


def test_every_item_is_sorted_by_who_finds_it():
    found = systems().found
    assert found["entity", None] == {Found.BOTH: 2, Found.ONLY_A: 1, Found.ONLY_B: 1, Found.WRONG_BOTH: 2}
    assert found["entity", "City"] == {Found.ONLY_B: 1}
    assert found["ent_rel", None] == {Found.ONLY_A: 1, Found.NEITHER: 1, Found.WRONG_A: 1, Found.WRONG_B: 1}
    assert systems(symmetric=["lives_in"]).found["ent_rel", "lives_in"] == {Found.ONLY_B: 1}


def test_sums_are_those_of_the_scores_also_across_sentences():
    across = CrossRelation("works_for", CrossEntity(0, 1, "Person"), CrossEntity(11, 13, "Company"))
    both = (Sentence(WORDS, (KIM,)), Sentence(WORDS, (ACME,)))
    gold = Corpus((*GOLD.documents, Document("d", both, cross_relations=(across,))))
    a = Corpus((*A.documents, Document("d", both)))
    b = Corpus((*B.documents, Document("d", both, cross_relations=(across,))))
    side = compare_systems(gold, a, b, draws=10, test_draws=10)
    for metric in ("entity", "relation", "ent_rel"):
        found, of_a, of_b = side.found[metric, None], getattr(side.a, metric), getattr(side.b, metric)
        assert of_a.tp == found[Found.BOTH] + found[Found.ONLY_A]
        assert of_b.tp == found[Found.BOTH] + found[Found.ONLY_B]
        assert of_a.predicted - of_a.tp == found[Found.WRONG_A] + found[Found.WRONG_BOTH]
        assert of_b.predicted - of_b.tp == found[Found.WRONG_B] + found[Found.WRONG_BOTH]
        assert of_a.gold == sum(found[part] for part in (Found.BOTH, Found.ONLY_A, Found.ONLY_B, Found.NEITHER))
    assert side.found["relation", "works_for"][Found.ONLY_B] == 1


def test_sentences_that_differ_are_drawn_before_others():
    sentences = systems().sentences
    assert [s.number for s in choose_sentences(sentences, 1)] == [1]
    assert [s.number for s in choose_sentences(sentences, 2)] == [1, 3]  # then those that both mark wrong
    assert [s.number for s in choose_sentences(sentences, 9)] == [1, 2, 3]


def test_predictions_are_marked_wrong_as_ent_rel_counts_them():
    wrong = WrongMarks(GOLD.sentences[0])
    assert [wrong(item) for item in (KIM, LEE, WORKS, Relation("lives_in", OSLO, KIM))] == ["", "wrong", "", "wrong"]
    assert wrong(Relation("works_for", KIM, Entity(3, 5, "City"))) == "wrong"
    symmetric = WrongMarks(GOLD.sentences[0], symmetric=["lives_in"])
    assert symmetric(Relation("lives_in", OSLO, KIM)) == ""


class Page(HTMLParser):
    """Texts and tags of a page; fails where tags do not match."""

    VOID = ("meta", "input", "br")

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.articles: list[dict[str, str | None]] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        if tag == "article":
            self.articles.append(dict(attrs))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag


def test_the_page_is_well_formed_and_needs_nothing_from_elsewhere():
    text = comparison_page(systems(), "A <title>")
    assert len(Page(text).articles) == 3
    assert not re.search(r"https?:|url\(|@import|<link|src=", text.replace("http://www.w3.org/2000/svg", ""))
    assert "A &lt;title&gt;" in text and "<title>A <title>" not in text


def test_the_page_shows_scores_differences_and_finds():
    text = re.sub(r"<[^>]+>", " ", html.unescape(comparison_page(systems(), "BERT and SPE")))
    flat = " ".join(text.split())
    assert "only BERT" in flat and "only SPE" in flat and "-50.0" in flat  # Relation F1 50 and 0
    assert re.search(r"Entity 4 2 1 1 0 2 0 0", flat)  # gold, both, A, B, neither; wrong by both, A, B
    assert "2 of 3 entities, 1 wrong; 1 of 2 relations, 1 wrong" in flat


def test_both_conventions_are_shown_where_a_type_is_symmetric():
    text = re.sub(r"<[^>]+>", " ", comparison_page(systems(symmetric=["lives_in"]), "t"))
    flat = " ".join(text.split())
    assert "but lives_in without" in flat
    assert "Relation, all with direction 50.0% 0.0% 50.0% 50.0% 0.0% 0.0%" in flat
    assert "with direction" not in comparison_page(systems(), "t").split("Scores")[1]


def test_filters_tell_articles_by_who_finds_what_and_of_which_type():
    text = comparison_page(systems(), "t")
    options = dict((name, number) for number, name in re.findall(r'<option value="(\d+)">([^<]+)<', text))
    first = Page(text).articles[0]
    tags = set((first["data-tags"] or "").split())
    assert {f"a{options['Company']}", f"b{options['City']}", f"n{options['lives_in']}"} <= tags
    assert {f"a{options['works_for']}", f"x{options['knows']}", f"y{options['lives_in']}"} <= tags


def test_the_page_says_what_is_left_out():
    text = comparison_page(systems(), "t", most_sentences=1)
    assert len(Page(text).articles) == 1
    assert "2 of 3 sentences are not drawn, 0 of them marked differently" in text
    assert "not drawn" not in comparison_page(systems(), "t")


def test_names_and_words_are_escaped_on_the_page():
    evil = corpus(Sentence(("<script>alert(1)</script>",), (Entity(0, 1, "<i>"),)))
    side = compare_systems(evil, evil, evil, ("<b>", "&"), draws=5, test_draws=5)
    text = comparison_page(side, "t")
    assert "<script>alert" not in text and "<i>" not in text and "<b></b>" not in text
    Page(text)


@pytest.mark.parametrize(
    ("nothing", "words"),
    [
        (Corpus(()), ["0 sentences; relations with direction", "No sentences."]),
        (corpus(Sentence(())), ["1 sentence; relations with direction", "0 of 0 entities; 0 of 0 relations"]),
    ],
    ids=["no sentence", "a sentence without words"],
)
def test_nothing_at_all_still_makes_a_page(nothing, words):
    text = comparison_page(compare_systems(nothing, nothing, nothing, draws=5, test_draws=5), "Of nothing")
    assert len(Page(text).articles) == nothing.n_sentences
    flat = " ".join(re.sub(r"<[^>]+>", " ", text).split())
    assert "Of nothing" in flat
    for word in (*words, "Entity - 0.0 - 0.0%", "Ent+Rel - 0.0 - 0.0%", "+0.0 +0.0 to +0.0 1.00"):
        assert word in flat


@pytest.mark.parametrize("most", [0, 2])
def test_the_number_of_drawn_sentences_is_a_setting(most):
    assert len(Page(comparison_page(systems(), "t", most)).articles) == most
