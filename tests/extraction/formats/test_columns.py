"""Corpora of one word a line: words and tags are found in any columns, and tags of any scheme are read."""

from __future__ import annotations

from pathlib import Path

import pytest
from corpora import MULTIHEAD
from project import SHARED

from spe_dist.errors import ConfigError, DataError
from spe_dist.extraction.corpora.corpus import Corpus, Entity, Relation
from spe_dist.extraction.formats import read_corpus, write_corpus, written_format

CASES = SHARED / "cases" / "annotations"


def read(folder: Path, text: str, **options: bool) -> Corpus:
    path = folder / "corpus"
    path.write_text(text, encoding="utf-8")
    return read_corpus(path, **options)  # type: ignore[arg-type]


def fault(folder: Path, text: str, format: str = "auto") -> str:
    path = folder / "corpus"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError) as error:
        read_corpus(path, format)
    assert str(path) in str(error.value) and "; " in str(error.value)
    return str(error.value)


def tagged(*tags: str) -> str:
    """A sentence with these tags, a word each."""
    return "".join(f"word{number}\t{tag}\n" for number, tag in enumerate(tags)) + "\n"


def found(corpus: Corpus) -> list[list[tuple[int, int, str]]]:
    return [[(entity.start, entity.end, entity.type) for entity in sentence.entities] for sentence in corpus.sentences]


@pytest.mark.skipif(not CASES.is_dir(), reason="needs the cases beside the project")
def test_the_cases_of_columns_are_read_whole() -> None:
    bio = read_corpus(CASES / "bio.tsv")
    assert (bio.format, len(bio.documents), bio.n_sentences) == ("conll", 1, 2)
    assert sum(len(sentence.entities) for sentence in bio.sentences) == 7 and not bio.notices
    assert bio.sentences[0].words[:3] == ("\U0001f389", "Ada", "Lovelace")
    multihead = read_corpus(CASES / "multihead.txt")
    (sentence,) = multihead.sentences
    ada, acme, london = sentence.entities
    assert multihead.format == "multihead" and not multihead.notices
    assert sentence.relations == (Relation("Owns", ada, acme), Relation("OrgBased_In", acme, london))


@pytest.mark.parametrize(
    ("scheme", "tags"),
    [
        ("IOB1", "I-P I-P B-P O I-Q I-P"),
        ("BIO", "B-P I-P B-P O B-Q B-P"),
        ("BIOES", "B-P E-P S-P O S-Q S-P"),
        ("BILOU", "B-P L-P U-P O U-Q U-P"),
        ("BMEWO", "B_P E_P W_P O W_Q W_P"),
    ],
)
def test_every_scheme_of_tags_gives_the_same_entities(tmp_path: Path, scheme: str, tags: str) -> None:
    corpus = read(tmp_path, tagged(*tags.split()))
    assert found(corpus) == [[(0, 2, "P"), (2, 3, "P"), (4, 5, "Q"), (5, 6, "P")]]
    began = {"tags I-, M-, E- or L- that begin an entity, as in IOB1 (read as B-)": 2}
    other = {"tags I-, M-, E- or L- of another type than the tag before (an entity begins there)": 1}
    assert corpus.notices == (began | other if scheme == "IOB1" else {})


def test_tags_that_no_scheme_allows_have_one_reading_and_are_counted(tmp_path: Path) -> None:
    corpus = read(tmp_path, tagged("B-P", "O", "E-P", "B-P", "I-P", "S-P", "I-Q") + tagged("B-P"))
    assert found(corpus) == [
        [(0, 1, "P"), (2, 3, "P"), (3, 5, "P"), (5, 6, "P"), (6, 7, "Q")],
        [(0, 1, "P")],
    ]
    assert sorted(corpus.notices.values()) == [2, 4]
    bare = read(tmp_path, tagged("B", "I", "O", "B"))
    assert found(bare) == [[(0, 2, "entity"), (3, 4, "entity")]]
    assert bare.notices == {"tags without a type (entities of type 'entity')": 3}


LAYOUTS = {
    "two columns": ("Ada B-P\nleft O\n", 0),
    "CoNLL-2003, whose chunks are tags too": ("Ada NNP B-NP B-P\nleft VBD B-VP O\n", 2),
    "the tag first": ("B-P\tAda\nO\tleft\n", 0),
    "numbered words, nested tags last": ("# page 3\n1\tAda\tB-P\tO\n2\tleft\tO\tB-Q\n", 0),
    "MultiCoNER": ("# id 5239d808\tdomain=train\nAda _ _ B-P\nleft _ _ O\n", 0),
    "words with spaces between tabs": ("Ada\tx y\tB-P\nleft\t\tO\n", 1),
    "tabs here and spaces there": ("Ada\tB-P\nleft O\n", 0),
    "spaces at the ends of lines": ("Ada B-P  \n left O\n", 0),
    "words that are tags": ("Ada B-P\nleft O\n\nO O\n\nB-Q B-P\n", 0),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_words_and_tags_are_found_in_their_columns(tmp_path: Path, layout: str) -> None:
    text, others = LAYOUTS[layout]
    corpus = read(tmp_path, text)
    assert corpus.format == "conll" and corpus.sentences[0].words == ("Ada", "left")
    assert found(corpus)[0] == [(0, 1, "P")]
    assert corpus.notices["columns beside words and tags, not kept"] == others


def test_of_two_columns_of_tags_gold_is_the_first_and_predictions_are_the_last(tmp_path: Path) -> None:
    text = "Ada NNP B-P O\nleft VBD O B-Q\n"
    gold, predicted = read(tmp_path, text), read(tmp_path, text, predictions=True)
    assert (found(gold), found(predicted)) == ([[(0, 1, "P")]], [[(1, 2, "Q")]])
    assert "further columns of tags, not read (the first is; of predictions, the last)" in gold.notices


def test_documents_begin_where_the_file_says_so(tmp_path: Path) -> None:
    sentence = "Ada B-P\n"
    parts = [sentence, "-DOCSTART- -X- O O (7 EU)\n", sentence, "\n", sentence, "-DOCSTART- O\n\n", sentence]
    corpus = read(tmp_path, "".join(parts))
    assert [(document.id, len(document.sentences)) for document in corpus.documents] == [("", 1), ("7 EU", 2), ("2", 1)]
    medline = read(tmp_path, f"###MEDLINE:95\n\n{sentence}\n{sentence}# newdoc id = n01\n{sentence}\n# text = Ada\n")
    assert [(document.id, len(document.sentences)) for document in medline.documents] == [("95", 2), ("n01", 1)]
    assert medline.notices == {"comment lines (#), not kept": 1}
    single = read(tmp_path, f"{sentence}\n \n{sentence}")
    assert [document.id for document in single.documents] == ["", ""]


def test_words_that_look_like_comments_or_json_are_words(tmp_path: Path) -> None:
    corpus = read(tmp_path, "[ O\nAda B-P\n# O\n{ O\n")
    assert corpus.sentences[0].words == ("[", "Ada", "#", "{")
    assert not corpus.notices


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("owns", "it has 1 columns where most lines have 2"),
        ("owns Acme O", "it has 3 columns where most lines have 2"),
        ("owns PER", 'column 2 holds "PER", which is not a tag'),
        ("owns B-", 'column 2 holds "B-", which is not a tag'),
    ],
)
def test_a_line_without_a_tag_is_named(tmp_path: Path, line: str, message: str) -> None:
    said = fault(tmp_path, f"Ada B-P\n{line}\nAcme B-Q\n. O\n")
    assert message in said and "line 2" in said and "give" in said


@pytest.mark.parametrize("text", ["Ada owns Acme.\nShe left.\n", "He took vitamin B-complex\n", "a,b,c\n1,2,3\n"])
def test_text_without_labels_is_refused_with_the_formats_that_are_known(tmp_path: Path, text: str) -> None:
    said = fault(tmp_path, f"\n{text}")
    assert "line 2 begins with" in said and "dygie: 'sentences'" in said and "conll: no JSON" in said
    if text.count("\n") > 1:
        assert "without a column of tags" in fault(tmp_path, text, "conll")


def test_another_format_than_asked_is_refused_for_columns_too(tmp_path: Path) -> None:
    assert "has the format conll, not spert as asked" in fault(tmp_path, tagged("B-P", "O"), "spert")
    json = '{"tokens": ["a"], "entities": [], "relations": []}'
    assert "has another format, not conll as asked" in fault(tmp_path, json, "conll")


def test_multi_head_relations_join_the_entities_of_their_words(tmp_path: Path) -> None:
    corpus = read(tmp_path, f"{MULTIHEAD}#doc 5122\n0\tBob\tB-Peop\t['N']\t[0]\n")
    first, second = corpus.documents
    ada, acme, london = first.sentences[0].entities
    assert (first.id, second.id) == ("5121", "5122")
    assert first.sentences[0].relations == (Relation("Owns", ada, acme), Relation("Lives_In", ada, london))
    spaces = read(tmp_path, MULTIHEAD.replace("\t", "  ").replace("'", '"'))
    assert spaces.sentences[0].relations == first.sentences[0].relations
    assert [len(sentence.words) for sentence in read(tmp_path, MULTIHEAD.partition("\n")[2] * 2).sentences] == [6, 6]


def test_multi_head_relations_of_other_words_are_kept_and_counted(tmp_path: Path) -> None:
    text = MULTIHEAD.replace("[3, 5]", "[2, 5]").replace("['N']\t[0]", "['Knows']\t[5]")
    corpus = read(tmp_path, text)
    knows, owns, _ = corpus.sentences[0].relations
    assert (knows.type, knows.head, owns.tail) == ("Knows", Entity(0, 2, "Peop"), Entity(2, 3, ""))
    assert corpus.notices == {
        "relation arguments named by another word than the entity's last": 1,
        "relation arguments that are not entities (kept without a type)": 1,
    }


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[3, 5]", "[3]", '2 relations have the words "[3]"'),
        ("[3, 5]", "[3, x]", '2 relations have the words "[3, x]"'),
        ("[3, 5]", "[3, 9]", "no word of its sentence has the number 9"),
        ("['Owns', 'Lives_In']", "[Owns, Lives_In]", '"[Owns, Lives_In]" is not a list of names'),
        ("['Owns', 'Lives_In']", "['Owns', '']", "\"['Owns', '']\" is not a list of names"),
        ("I-Peop", "Peop", '"Peop" is not a tag'),
        ("['Owns', 'Lives_In']\t", "", "five columns are expected"),
    ],
)
def test_a_line_of_multi_head_columns_that_is_wrong_is_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    said = fault(tmp_path, MULTIHEAD.replace(old, new))
    assert message in said and "line 3" in said


def test_columns_are_only_read_and_predictions_on_them_are_written_as_spert(tmp_path: Path) -> None:
    corpus = read(tmp_path, MULTIHEAD)
    with pytest.raises(ConfigError, match="format='multihead' is read and not written; choose one of dygie, spert"):
        write_corpus(corpus, tmp_path / "out", "multihead")
    assert write_corpus(corpus, tmp_path / "out", written_format("multihead")) == {}
    again = read_corpus(tmp_path / "out")
    assert again.sentences[0].relations == corpus.sentences[0].relations and again.documents[0].id == "5121"
