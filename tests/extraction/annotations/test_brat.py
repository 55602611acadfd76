"""brat folders, read and written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from project import SHARED

from spe_dist.errors import DataError
from spe_dist.extraction.annotations import align as aligning
from spe_dist.extraction.annotations import brat, offsets
from spe_dist.extraction.corpora.corpus import Corpus, Document, Entity, Relation, Sentence
from spe_dist.extraction.corpora.names import file_names
from spe_dist.extraction.formats import read_corpus, write_corpus

CASE = SHARED / "cases/annotations/brat"
TEXT = "\U0001f389 Ada wrote\ncode. It ran."
ANN = "T1\tPerson 2 5\tAda\nT2\tWork 12 16\tcode\nR1\twrote Arg1:T1 Arg2:T2\t\n"


def folder(path: Path, text: str | bytes = TEXT, ann: str = ANN, name: str = "doc") -> Path:
    file = path / "corpus" / f"{name}.txt"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    file.with_suffix(".ann").write_bytes(ann.encode())
    return path / "corpus"


def reasons(corpus: Corpus) -> dict[str, int]:
    return {reason.partition(" (first")[0]: count for reason, count in corpus.notices.items()}


def files_of(path: Path) -> dict[str, str]:
    return {str(file.relative_to(path)): file.read_bytes().decode() for file in path.rglob("*") if file.is_file()}


@pytest.mark.skipif(not CASE.is_dir(), reason="needs the cases beside the project")
def test_all_that_a_brat_file_holds_is_read_or_counted() -> None:
    corpus = read_corpus(CASE)
    first, second = corpus.sentences
    assert corpus.format == "brat" and len(first.entities) + len(second.entities) == 8
    assert [r.type for r in first.relations] == ["owns", "part-of", "founded"] and first.relations[0].head.span == (
        1,
        3,
    )
    assert [r.type for r in second.relations] == ["left"]
    assert [r.type for r in corpus.documents[0].cross_relations] == ["same-as"]
    assert reasons(corpus) == {
        **dict.fromkeys((brat.NO_PLACE[kind] for kind in "EA#*"), 1),
        aligning.DISCONTINUOUS: 1,
        aligning.BETWEEN: 1,
    }


def test_folders_in_folders_are_read_by_name_and_hidden_files_are_not(tmp_path: Path) -> None:
    for name in ("b", "a/c", "._b", ".git/d"):
        corpus = read_corpus(folder(tmp_path, name=name))
    assert [document.id for document in corpus.documents] == ["a/c", "b"]
    assert read_corpus(tmp_path / "corpus/b.ann").n_sentences == 2


def test_a_text_or_annotations_alone_are_counted(tmp_path: Path) -> None:
    path = folder(tmp_path)
    (path / "bare.txt").write_text("Nobody looked at it.")
    (path / "lost.ann").write_text(ANN)
    (path / "nothing.txt").write_text("Nothing is in it.")
    (path / "nothing.ann").write_text("")
    corpus = read_corpus(path)
    assert [document.id for document in corpus.documents] == ["doc", "nothing"]
    assert reasons(corpus) == {brat.NO_TEXT: 1, brat.NO_ANNOTATIONS: 1}
    (path / "doc.txt").unlink()
    (path / "nothing.txt").unlink()
    with pytest.raises(DataError, match=r"no text beside it; put each text there"):
        read_corpus(path)


def test_a_folder_without_annotations_is_no_corpus(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"is a folder without \.ann files"):
        read_corpus(tmp_path)
    with pytest.raises(DataError, match="has the format brat, not spert"):
        read_corpus(folder(tmp_path), "spert")


def test_annotations_in_two_files_are_one_document(tmp_path: Path) -> None:
    path = folder(tmp_path, ann="")
    (path / "doc.ann").rename(path / "doc.a1")
    (path / "doc.a1").write_text("T1\tPerson 2 5\tAda\n")
    (path / "doc.a2").write_text("T2\tWork 12 16\tcode\nE1\tWriting:T2\nR1\twrote Arg1:T1 Arg2:E1\n")
    corpus = read_corpus(path)
    assert corpus.sentences[0].relations == (Relation("wrote", Entity(1, 2, "Person"), Entity(3, 4, "Work")),)
    assert reasons(corpus) == {brat.NO_PLACE["E"]: 1, brat.EVENT_ARGUMENTS: 1}


@pytest.mark.parametrize(
    ("text", "places", "unit"),
    [
        (TEXT, ("2 5", "12 16"), None),
        (TEXT, ("3 6", "13 17"), "UTF-16 units"),
        (TEXT, ("5 8", "15 19"), "bytes"),
        (b"\xef\xbb\xbf" + TEXT.encode(), ("3 6", "13 17"), "a byte order mark"),
        (b"\xef\xbb\xbf" + TEXT.encode(), ("2 5", "12 16"), None),
        (TEXT.replace("\n", "\r\n"), ("2 5", "13 17"), None),
        (TEXT.replace("\n", "\r\n"), ("2 5", "12 16"), "a line break as one character"),
        (TEXT, ("2 5", "13 17"), "a line break as two characters"),
        (b"\xef\xbb\xbf" + TEXT.encode(), ("4 7", "14 18"), "UTF-16 units and a byte order mark"),
    ],
)
def test_what_offsets_count_is_seen_by_the_words(
    tmp_path: Path, text: str | bytes, places: tuple[str, str], unit: str | None
) -> None:
    ann = f"T1\tPerson {places[0]}\tAda\nT2\tWork {places[1]}\tcode\n"
    corpus = read_corpus(folder(tmp_path, text, ann))
    assert [e for s in corpus.sentences for e in s.entities] == [Entity(1, 2, "Person"), Entity(3, 4, "Work")]
    if unit == "UTF-16 units":  # the same offsets as those behind a byte order mark
        assert sum(reasons(corpus).values()) == 1
    else:
        assert reasons(corpus) == ({offsets.OTHER_UNIT.format(unit): 1} if unit else {})


def test_an_entity_whose_words_are_elsewhere_is_left_out_with_its_relations_and_named(tmp_path: Path) -> None:
    corpus = read_corpus(folder(tmp_path, ann=ANN.replace("\tAda\n", "\tBob\n")))
    assert corpus.sentences[0].entities == (Entity(3, 4, "Work"),)
    assert reasons(corpus) == {offsets.NOT_AT_OFFSETS: 1, offsets.LOST_ARGUMENTS: 1}
    assert any('Person T1 "Bob", where the text has "Ada"' in reason for reason in corpus.notices)


def test_offsets_beyond_the_text_and_unknown_arguments_are_counted(tmp_path: Path) -> None:
    ann = "T1\tPerson 2 500\nT2\tWork 12 16\tcode\nR1\ta Arg1:T2 Arg2:T9\nR2\tb Arg1:T2\nX1\twhat\n\n"
    corpus = read_corpus(folder(tmp_path, ann=ann))
    assert [len(s.entities) for s in corpus.sentences] == [1, 0]
    assert reasons(corpus) == {
        aligning.BEYOND: 1,
        brat.UNKNOWN_ARGUMENTS: 1,
        brat.NOT_TWO: 1,
        brat.UNKNOWN_LINES: 1,
    }


@pytest.mark.parametrize(
    ("ann", "message"),
    [
        ("T1\tPerson two 5\tAda\n", r'doc\.ann, line 1 is .*an entity has a type and offsets; write "T1<tab>Type'),
        ("T1\tPerson\n", "an entity has a type and offsets"),
        (f"T1\tPerson 0 {'9' * 5000}\tAda\n", "an entity has a type and offsets"),
        ("T1 Person 2 5 Ada\n", "an entity has a type and offsets"),
        (f"{ANN}T2\tWork 2 5\tAda\n", r"line 4 is .*T2 is the id of an earlier entity"),
        (f"{ANN}R2\twrote T1 T2\n", r"line 4 is .*a relation has a type and arguments"),
        (f"{ANN}R2\t\n", "a relation has a type"),
    ],
)
def test_damaged_lines_are_refused_with_their_place(tmp_path: Path, ann: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_corpus(folder(tmp_path, ann=ann))


def test_a_text_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"doc\.txt, line 1 is not UTF-8"):
        read_corpus(folder(tmp_path, text=b"Ada \xff wrote"))


def test_a_folder_comes_back_as_it_was(tmp_path: Path) -> None:
    ann = ANN.replace("\t\n", "\n").replace("R1", "T3\tPlace 2 5;12 16\tAda code\nT4\tWork 2 4\tAd\nR1")
    path = folder(tmp_path, TEXT.replace("\n", "\r\n"), ann.replace("12 16", "13 17"), name="a/doc")
    folder(tmp_path, name="b/doc")
    corpus = read_corpus(path)
    assert write_corpus(corpus, tmp_path / "out", "brat") == {}
    out = files_of(tmp_path / "out")
    assert out.pop("annotation.conf").startswith("[entities]\nPerson\nPlace\nWork\n\n[relations]\nwrote\tArg1:<ENTITY>")
    before = files_of(path)
    before["b/doc.ann"] = before["b/doc.ann"].replace("\t\n", "\n")
    assert out == before


def test_an_entity_over_a_line_break_is_written_in_parts_and_read_as_one(tmp_path: Path) -> None:
    words, places = ("Ada", "wrote", "code"), ((0, 3), (4, 9), (10, 14))
    sentence = Sentence(words, (Entity(0, 3, "A b"),), text="Ada\nwrote code", char_spans=places)
    corpus = Corpus((Document("d", (sentence,), text="Ada\nwrote code", starts=(0,)),))
    losses = write_corpus(corpus, tmp_path / "out", "brat")
    assert (tmp_path / "out/d.ann").read_text() == "T1\tA_b 0 3;4 14\tAda wrote code\n"
    assert losses["entities and relations whose type has white space, written as _"] == 1
    assert read_corpus(tmp_path / "out").sentences[0].entities == (Entity(0, 3, "A_b"),)


def test_file_names_stay_inside_the_folder_and_differ() -> None:
    keys = ["/data/x/a.txt", "/data/x/A.txt", "/data/x/b/c.jsonl.gz"]
    assert file_names(keys) == ["a", "A-2", "b/c"]
    assert file_names(["../../etc/passwd", "C:\\notes\\a?.txt", ".hidden", "", "notes/"]) == [
        "etc/passwd",
        "C_/notes/a_",
        "_hidden",
        "4",
        "notes",
    ]
    assert file_names(["only/one.txt"]) == ["one"]


def test_a_folder_is_looked_through_up_to_its_first_file_of_annotations_and_a_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = folder(tmp_path, name="a/b/doc")
    assert brat.is_brat(corpus) and brat.is_brat(corpus / "a/b/doc.ann") and not brat.is_brat(corpus / "a/b/doc.txt")
    hidden = tmp_path / "hidden"
    (hidden / ".git").mkdir(parents=True)
    (hidden / ".git/doc.ann").write_text("")
    (hidden / "up").symlink_to(hidden)
    assert not brat.is_brat(hidden) and not brat.is_brat(tmp_path / "nowhere")
    listed: list[str] = []
    scan = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: listed.append(str(path)) or scan(path))
    for name in "xyz":
        (corpus / "a/b" / name).mkdir()
    assert brat.is_brat(corpus) and listed == [str(corpus), str(corpus / "a"), str(corpus / "a/b")]
    monkeypatch.setattr(brat, "MOST_ENTRIES", 2)
    assert not brat.is_brat(corpus)


def test_a_folder_with_other_files_is_not_overwritten(tmp_path: Path) -> None:
    corpus = read_corpus(folder(tmp_path))
    out = tmp_path / "out"
    write_corpus(corpus, out, "brat")
    with pytest.raises(DataError, match="is not empty"):
        write_corpus(corpus, out, "brat", overwrite=False)
    write_corpus(corpus, out, "brat")
    (out / "thesis.tex").write_text("mine")
    with pytest.raises(DataError, match=r"holds thesis\.tex"):
        write_corpus(corpus, out, "brat")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(DataError, match="is a file, and brat is a folder"):
        write_corpus(corpus, tmp_path / "file", "brat")
