"""From labelled characters to labelled words: what fits, and what is counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spe_dist.errors import ConfigError, DataError
from spe_dist.extraction.annotations import align as aligning
from spe_dist.extraction.annotations.align import align
from spe_dist.extraction.annotations.back import characters_of
from spe_dist.extraction.annotations.document import AnnotatedDocument, AnnotatedRelation, AnnotatedSpan, keeping
from spe_dist.extraction.annotations.settings import DEFAULTS, AnnotationSettings
from spe_dist.extraction.corpora.corpus import CrossEntity, CrossRelation, Document, Entity, Relation
from spe_dist.extraction.formats.notices import Notices

TEXT = "\U0001f389 Ada Lovelace wrote code. It ran in London."


def of(*pieces: tuple[int, int], type: str = "P", key: str | None = None) -> AnnotatedSpan:
    return AnnotatedSpan(pieces, type, key)


def aligned(
    spans: Sequence[AnnotatedSpan] = (),
    relations: Sequence[AnnotatedRelation] = (),
    settings: AnnotationSettings = DEFAULTS,
    text: str = TEXT,
    tokens: tuple[tuple[int, int], ...] | None = None,
    sentences: tuple[tuple[int, int], ...] | None = None,
) -> tuple[Document, Counter[str]]:
    notices = Notices()
    document = AnnotatedDocument("d", text, tuple(spans), tuple(relations), tokens, sentences, "file, line 1")
    return align(document, settings, notices), notices.named()


def test_spans_behind_an_emoji_become_words_and_keep_their_text() -> None:
    document, notices = aligned([of((2, 14)), of((37, 43), type="C")])
    first, second = document.sentences
    assert first.entities == (Entity(1, 3, "P"),) and first.words[1:3] == ("Ada", "Lovelace")
    assert second.entities == (Entity(3, 4, "C"),) and second.words[3] == "London"
    places = zip(document.starts, document.sentences, strict=True)
    assert document.text == TEXT and all(TEXT[start:].startswith(sentence.text or "?") for start, sentence in places)
    assert first.char_spans is not None and first.char_spans[1] == (2, 5)
    assert second.origin == "file, line 1, sentence 2" and not notices


def test_a_span_that_cuts_a_word_is_widened_or_dropped_and_named() -> None:
    document, notices = aligned([of((6, 10), key="T1")])
    assert document.sentences[0].entities == (Entity(2, 3, "P"),)
    assert notices == {f'{aligning.WIDENED} (first: "Love", P T1, file, line 1 cuts "Lovelace")': 1}
    spans, relations = [of((6, 10)), of((15, 20))], [AnnotatedRelation(0, 1, "r")]
    document, notices = aligned(spans, relations, AnnotationSettings(cut_words="drop"))
    assert document.sentences[0].entities == (Entity(3, 4, "P"),) and not document.sentences[0].relations
    assert [reason.partition(" (first")[0] for reason in notices] == [aligning.DROPPED, aligning.LOST_ARGUMENTS]


@pytest.mark.parametrize(
    ("pieces", "reason"),
    [
        ([(40, 99)], aligning.BEYOND),
        ([(-3, 4)], aligning.BEYOND),
        ([(9, 4)], aligning.BEYOND),
        ([(5, 5)], aligning.EMPTY),
        ([(5, 6)], aligning.EMPTY),
    ],
)
def test_spans_that_cover_nothing_are_left_out_and_named(pieces: list[tuple[int, int]], reason: str) -> None:
    document, notices = aligned([of(*pieces)])
    assert not any(sentence.entities for sentence in document.sentences)
    [named] = notices
    assert named.startswith(f"{reason} (first: ") and "file, line 1" in named


def test_white_space_at_the_ends_of_a_span_is_not_taken() -> None:
    document, notices = aligned([of((1, 6))])
    assert document.sentences[0].entities == (Entity(1, 2, "P"),)
    assert [reason.startswith(aligning.TRIMMED) for reason in notices] == [True]


def test_a_discontinuous_span_keeps_its_parts_unless_only_white_space_is_between() -> None:
    document, notices = aligned([of((2, 5), (15, 20)), of((2, 5), (6, 14))])
    assert document.sentences[0].entities == (Entity(1, 4, "P", ((1, 2), (3, 4))), Entity(1, 3, "P"))
    assert [reason.startswith(aligning.DISCONTINUOUS) for reason in notices] == [True]


def test_what_goes_over_a_sentences_end_stays_with_the_document() -> None:
    spans = [of((2, 5)), of((27, 29)), of((21, 29), type="X"), of((30, 33), type="Y")]
    relations = [AnnotatedRelation(0, 1, "r"), AnnotatedRelation(2, 1, "s"), AnnotatedRelation(3, 1, "t")]
    document, notices = aligned(spans, relations)
    ada, it, across = CrossEntity(1, 2, "P"), CrossEntity(6, 7, "P"), CrossEntity(4, 7, "X")
    assert document.cross_entities == (across,)
    assert document.cross_relations == (CrossRelation("r", ada, it), CrossRelation("s", across, it))
    assert document.sentences[1].relations == (Relation("t", Entity(1, 2, "Y"), Entity(0, 1, "P")),)
    counts = {reason.partition(" (first")[0]: count for reason, count in notices.items()}
    assert counts[aligning.CROSSING] == 1 and counts[aligning.BETWEEN] == 2


def test_nested_spans_stay_and_are_counted() -> None:
    document, notices = aligned([of((2, 14)), of((2, 5)), of((2, 14), type="Q")])
    assert len(document.sentences[0].entities) == 3
    assert notices == {f'{aligning.NESTED} (first: "Ada" in "Ada Lovelace", file, line 1)': 1}


def test_own_tokens_are_kept_and_sentences_end_where_the_text_says() -> None:
    tokens = ((0, 1), (1, 2), (2, 14), (15, 25), (25, 26), (27, 29), (30, 43), (43, 44))
    document, notices = aligned([of((2, 14)), of((21, 25))], tokens=tokens)
    assert [s.words for s in document.sentences] == [
        ("\U0001f389", "Ada Lovelace", "wrote code", "."),
        ("It", "ran in London", "."),
    ]
    assert document.sentences[0].entities == (Entity(1, 2, "P"), Entity(2, 3, "P"))
    assert {reason.partition(" (first")[0] for reason in notices} == {
        "tokens that are empty or white space, left out",
        aligning.WIDENED,
    }


def test_own_sentences_are_kept() -> None:
    document, _ = aligned(sentences=((0, 14), (15, 44)))
    assert [len(s.words) for s in document.sentences] == [3, 8]


@pytest.mark.parametrize("tokens", [((0, 1), (5, 3)), ((2, 5), (4, 6)), ((40, 99),)])
def test_tokens_out_of_order_or_text_are_refused(tokens: tuple[tuple[int, int], ...]) -> None:
    with pytest.raises(DataError, match=r"file, line 1: tokens has .* leave tokens out"):
        aligned(tokens=tokens)


def test_words_are_those_of_the_language() -> None:
    text = "\u6211\u7231\u5317\u4eac\u3002\u4ed6\u4e5f\u662f\u3002"
    document, notices = aligned([of((2, 4), type="City")], text=text)
    assert [len(s.words) for s in document.sentences] == [5, 4] and not notices
    assert document.sentences[0].entities == (Entity(2, 4, "City"),)
    german, _ = aligned(settings=AnnotationSettings(language="de"), text="Am 3. Mai kam sie.")
    english, _ = aligned(settings=AnnotationSettings(language="en"), text="Am 3. Mai kam sie.")
    assert german.sentences != english.sentences
    with pytest.raises(ConfigError, match="language"):
        AnnotationSettings(language="klingon")


def test_a_text_without_words_is_counted_and_an_unknown_choice_refused() -> None:
    document, notices = aligned(text=" \n ")
    assert not document.sentences and notices == {f"{aligning.NO_TEXT} (first: file, line 1)": 1}
    with pytest.raises(ConfigError, match="cut_words='shrink' is unknown"):
        AnnotationSettings(cut_words="shrink")  # type: ignore[arg-type]


def test_documents_without_some_spans_have_no_relation_of_these() -> None:
    relations = (AnnotatedRelation(0, 2, "r"), AnnotatedRelation(1, 2, "s"))
    document = AnnotatedDocument("d", TEXT, (of((0, 1)), of((2, 5)), of((6, 14))), relations)
    assert keeping(document, [False, True, True]).relations == (AnnotatedRelation(0, 1, "s"),)


@given(st.text(alphabet="ab .\n\u00e9\U0001f389\u4e2d", max_size=40), st.data())
def test_words_of_a_span_cover_its_characters_and_no_further_word(text: str, data: st.DataObject) -> None:
    place = st.tuples(st.integers(0, len(text)), st.integers(0, len(text))).map(lambda ends: (min(ends), max(ends)))
    spans = [of(piece) for piece in data.draw(st.lists(place, max_size=4))]
    document, _ = aligned(spans, text=text)
    words = [
        (start + a, start + b)
        for start, sentence in zip(document.starts, document.sentences, strict=True)
        for a, b in sentence.char_spans or ()
    ]
    expected = []
    for ((start, end),) in (span.pieces for span in spans):
        touched = [i for i, (a, b) in enumerate(words) if text[max(a, start) : min(b, end)].strip()]
        if touched:
            expected.append((touched[0], touched[-1] + 1))
    first, found = 0, [(entity.start, entity.end) for entity in document.cross_entities]
    for sentence in document.sentences:
        found += [(first + entity.start, first + entity.end) for entity in sentence.entities]
        first += len(sentence.words)
    assert sorted(found) == sorted(expected)
    assert characters_of(document, Counter()).spans == tuple(spans)
