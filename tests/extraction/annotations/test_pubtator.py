"""PubTator: abstracts one behind another, composite concepts, and relations between concepts."""

from __future__ import annotations

from pathlib import Path

import pytest
from annotation_tools import PUBTATOR, entities_of, relations_of

from spe_dist.errors import DataError
from spe_dist.extraction.annotations.settings import AnnotationSettings
from spe_dist.extraction.corpora.corpus import Corpus
from spe_dist.extraction.formats import read_corpus

HEAD = "1|t|Ada met Bob. Bob left.\n1|a|Later Ada saw Bob and Bob saw Cy.\n"  # the abstract begins at 23
MENTIONS = [
    ("Ada", 0, "C1"),
    ("Bob", 8, "C2"),
    ("Bob", 13, "C2"),
    ("Ada", 29, "C1"),
    ("Bob", 37, "C2"),
    ("Bob", 45, "C2"),
    ("Cy", 53, "C3"),
]
LINES = "".join(f"1\t{start}\t{start + len(text)}\t{text}\tPerson\t{concept}\n" for text, start, concept in MENTIONS)


def read(folder: Path, text: str, settings: AnnotationSettings | None = None) -> Corpus:
    path = folder / "file.txt"
    path.write_text(text, encoding="utf-8")
    return read_corpus(path, settings=settings or AnnotationSettings())


def reasons(corpus: Corpus) -> list[str]:
    return [notice.split(" (first")[0] for notice in corpus.notices]


def test_a_relation_stands_between_all_pairs_of_mentions_in_a_sentence(tmp_path: Path) -> None:
    corpus = read(tmp_path, f"{HEAD}{LINES}1\tmet\tC1\tC2\n")
    assert relations_of(corpus) == [("met", "Ada", "Bob")] * 3
    assert not corpus.documents[0].cross_relations
    starts = [(relation.head.start, relation.tail.start) for relation in corpus.sentences[2].relations]
    assert starts == [(1, 3), (1, 5)]


def test_a_relation_stands_between_the_nearest_mentions(tmp_path: Path) -> None:
    corpus = read(tmp_path, f"{HEAD}{LINES}1\tmet\tC2\tC1\n", AnnotationSettings(concept_pairs="nearest"))
    [relation] = [relation for sentence in corpus.sentences for relation in sentence.relations]
    assert relation in corpus.sentences[0].relations  # 5 characters apart, as in the abstract: the first one
    assert (relation.head.start, relation.tail.start) == (2, 0)
    assert reasons(corpus) == ["relations between concepts, placed between their nearest mentions in a sentence"]


def test_the_nearest_mentions_share_a_sentence_where_any_do(tmp_path: Path) -> None:
    text = "1|t|Ada met a tall man called Bob. Ada left.\n"
    lines = "1\t0\t3\tAda\tP\tC1\n1\t26\t29\tBob\tP\tC2\n1\t31\t34\tAda\tP\tC1\n"
    corpus = read(tmp_path, f"{text}{lines}1\tmet\tC1\tC2\n", AnnotationSettings(concept_pairs="nearest"))
    [relation] = corpus.sentences[0].relations
    assert (relation.head.start, relation.tail.start) == (0, 6) and not corpus.documents[0].cross_relations


def test_concepts_without_a_common_sentence_are_related_once_across_sentences(tmp_path: Path) -> None:
    text = "1|t|Ada met.\n1|a|Bob left. Then Ada. It was Bob.\n"  # Bob 9-12, Ada 24-27, Bob 36-39
    lines = "1\t0\t3\tAda\tP\tC1\n1\t24\t27\tAda\tP\tC1\n1\t9\t12\tBob\tP\tC2\n1\t36\t39\tBob\tP\tC2\n"
    corpus = read(tmp_path, f"{text}{lines}1\tmet\tC1\tC2\n")
    assert not relations_of(corpus)
    [relation] = corpus.documents[0].cross_relations
    assert (relation.head.start, relation.tail.start) == (0, 3)
    assert reasons(corpus)[0].startswith("relations between concepts that share no sentence")


def test_a_mention_may_name_several_concepts_or_none(tmp_path: Path) -> None:
    text = "1|t|Ada and Bob met Cy and it.\n"
    mentions = (
        "1\t0\t11\tAda and Bob\tP\tC1|C2\tAda|Bob\n1\t16\t18\tCy\tP\tC3\n1\t23\t25\tit\tP\t-1\n1\t12\t15\tmet\tV\n"
    )
    relations = "1\tmet\tC2\tC3\n1\tmet\tC3\tC1\n1\tis\tC1\tC2\n1\tmet\tC1\t-1\n1\tsame\tC1|C2\tC3\n"
    corpus = read(tmp_path, text + mentions + relations)
    assert len(entities_of(corpus)) == 4
    assert relations_of(corpus) == [
        ("met", "Ada and Bob", "Cy"),
        ("met", "Cy", "Ada and Bob"),
        ("same", "Ada and Bob", "Cy"),
    ]
    assert dict(zip(reasons(corpus), corpus.notices.values(), strict=True)) == {
        "relations between concepts, placed between all pairs of their mentions in a sentence": 3,
        "relations of concepts that have no mention each, left out": 2,
    }


def test_ids_of_variants_are_whole_though_they_hold_bars(tmp_path: Path) -> None:
    text = "1|t|V600E in BRAF and KRAS.\n"
    mentions = (
        "1\t0\t5\tV600E\tVariant\tp|SUB|V|600|E\n1\t9\t13\tBRAF\tGene\t673\n1\t18\t22\tKRAS\tGene\t600;MESH:D1,OMIM:7\n"
    )
    corpus = read(
        tmp_path, f"{text}{mentions}1\tin\tp|SUB|V|600|E\t673\tNovel\n1\tnear\t600\tOMIM:7\n1\tat\t600\t673\n"
    )
    assert relations_of(corpus) == [("in", "V600E", "BRAF"), ("at", "KRAS", "BRAF")]
    assert "relations with further columns, not kept" in corpus.notices


def test_abstracts_need_no_blank_line_between_them_and_may_have_several(tmp_path: Path) -> None:
    only_abstract = "3|a|It ran.\n3\t0\t2\tIt\tWork\t-\n"
    corpus = read(tmp_path, f"{PUBTATOR}8|t|\n8|a|It ran.\n8\t1\t3\tIt\tWork\t5\n\n\n{only_abstract}{PUBTATOR}")
    assert [document.id for document in corpus.documents] == ["7", "8", "3", "7"]
    assert entities_of(corpus)[3:5] == [("It", "Work")] * 2 and not [r for r in reasons(corpus) if "text" in r]


def test_no_sentence_goes_from_the_title_into_the_abstract(tmp_path: Path) -> None:
    corpus = read(tmp_path, "1|t|Effects of aspirin\n1|a|on patients.\n")
    assert [sentence.words for sentence in corpus.sentences] == [("Effects", "of", "aspirin"), ("on", "patients", ".")]
    assert corpus.documents[0].text == "Effects of aspirin on patients."


def test_a_mention_whose_text_is_another_one_is_left_out_and_counted(tmp_path: Path) -> None:
    mentions = "1\t0\t3\tEve\tP\tC1\n1\t4\t7\tmet\tV\tC2\n1\t8\t11\tBob\tP\tC1\n"
    corpus = read(tmp_path, f"1|t|Ada met Bob.\n{mentions}1\tdid\tC1\tC2\n")
    assert relations_of(corpus) == [("did", "Bob", "met")] and len(entities_of(corpus)) == 2
    corpus = read(tmp_path, f"1|t|Ada met Bob.\n{mentions}")
    assert sum(corpus.notices.values()) == 1 and '"Eve"' in next(iter(corpus.notices))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("2\t0\t3\tAda\tPerson\tC1", r"line 3 is .* but it stands with the abstract \"1\"; put it behind"),
        ("1\t0\t3\tAda", "line 3 is .* but a mention is PMID, start, end, text, type, concept"),
        ("1\t0\tx\tAda\tPerson\tC1", "line 3 is .* but a mention is PMID"),
        ("1 0 3 Ada Person C1", 'line 3 is .* but it stands with the abstract "1"'),
        ("1\t0\t3\tAda\t\tC1", "line 3 is .* but a mention needs a type"),
        (f"1\t0\t{'9' * 5000}\tAda\tPerson\tC1", "line 3 is .* but a mention is PMID"),
    ],
)
def test_damaged_lines_are_refused_with_their_place(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(tmp_path, f"{HEAD}{line}\n")


def test_another_format_than_asked_for_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file.txt").write_text(PUBTATOR, encoding="utf-8")
    with pytest.raises(DataError, match="has the format pubtator, not spert as asked"):
        read_corpus(tmp_path / "file.txt", "spert")
    (tmp_path / "file.json").write_text('{"text": "a", "entities": []}', encoding="utf-8")
    with pytest.raises(DataError, match="has another format, not pubtator as asked"):
        read_corpus(tmp_path / "file.json", "pubtator")
