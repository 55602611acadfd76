"""Writing corpora: nothing is lost without being counted, nothing half written stays."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from corpora import DYGIE, SPERT, WORD_FORMATS, changed, plain, put
from hypothesis import given, settings
from hypothesis import strategies as st
from project import SHARED

from spe_dist.errors import DataError
from spe_dist.extraction.corpora.corpus import Corpus, Document, Entity, Relation, Sentence
from spe_dist.extraction.formats import read_corpus, write_corpus

DATA = SHARED / "data/extraction"
REAL = ["scierc/dev.json", "scierc/test.json", "conll04/dev.json"]


def test_a_file_that_cannot_be_written_whole_leaves_what_was_there(tmp_path: Path) -> None:
    path = put(tmp_path, SPERT)
    before = path.read_bytes()
    corpus = Corpus((Document("x", (Sentence(("fine",)), Sentence(("\ud800",)))),))
    with pytest.raises(DataError, match="cannot be written"):
        write_corpus(corpus, path, "spert")
    with pytest.raises(DataError, match="exists"):
        write_corpus(read_corpus(path), path, "spert", overwrite=False)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_documents_and_gold_across_sentences_survive_formats_of_sentences(tmp_path: Path) -> None:
    record = changed(DYGIE, ["ner", 0], [[0, 1, "Person"], [3, 4, "Work"]])
    record["relations"] = [[[3, 4, 0, 1, "Made-By"]], []]
    corpus = read_corpus(put(tmp_path, record, {**record, "doc_key": "d2"}))
    for name in ("spert", "pspe", "nyt"):
        losses = write_corpus(corpus, tmp_path / "out.json", name)
        again = read_corpus(tmp_path / "out.json")
        assert plain(again) == plain(corpus)
        assert [document.extra for document in again.documents] == [{"clusters": DYGIE["clusters"]}] * 2
        assert losses["relations across sentences, kept in 'document_fields', which other tools pass over"] == 2


@pytest.mark.parametrize("name", ["pspe", "nyt"])
def test_an_article_id_that_is_not_the_documents_is_counted_when_it_is_not_written(tmp_path: Path, name: str) -> None:
    losses = []
    for article in ("x", "d", None):
        record = {**changed(SPERT, ["orig_id"], KeyError), "doc_key": "d", "articleId": article}
        corpus = read_corpus(put(tmp_path, record if article else {**record, "doc_key": None}))
        losses.append(write_corpus(corpus, tmp_path / "out.json", name))
    assert losses == [{"values of the field 'articleId', which has another meaning in this format": 1}, {}, {}]


def test_a_field_of_the_users_that_nyt_reads_otherwise_is_counted_when_it_is_not_written(tmp_path: Path) -> None:
    corpus = read_corpus(put(tmp_path, {**SPERT, "unplaced": {"foo": 1}}))
    losses = write_corpus(corpus, tmp_path / "out.json", "nyt")
    assert [count for reason, count in losses.items() if "'unplaced'" in reason] == [1]
    assert "unplaced" not in json.loads((tmp_path / "out.json").read_text())
    assert write_corpus(corpus, tmp_path / "out.json", "pspe") == {}
    assert json.loads((tmp_path / "out.json").read_text())["unplaced"] == {"foo": 1}


def test_spert_json_is_a_list_and_jsonl_has_lines_and_gz_is_compressed(tmp_path: Path) -> None:
    corpus = read_corpus(put(tmp_path, SPERT, SPERT))
    for name in ("a.json", "a.jsonl", "a.jsonl.gz", "a.json.xz", "a.jsonl.zst", "a.json.bz2"):
        write_corpus(corpus, tmp_path / name, "spert")
        assert plain(read_corpus(tmp_path / name)) == plain(corpus)
    assert json.loads((tmp_path / "a.json").read_text())[1] == SPERT
    assert json.loads((tmp_path / "a.jsonl").read_text().split("\n")[1]) == SPERT
    assert (tmp_path / "a.jsonl.gz").read_bytes()[:2] == b"\x1f\x8b"
    assert (tmp_path / "a.jsonl.zst").read_bytes()[:4] == b"\x28\xb5\x2f\xfd"


def test_a_pipe_is_written_to_and_stays_a_pipe(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    received: list[str] = []
    reader = threading.Thread(target=lambda: received.append(pipe.read_text()), daemon=True)
    reader.start()
    write_corpus(read_corpus(put(tmp_path, SPERT)), pipe, "spert")
    reader.join(timeout=60)
    assert pipe.is_fifo() and json.loads(received[0]) == [SPERT]


def test_devices_and_pipes_hold_nothing_that_could_be_overwritten_but_files_behind_links_do(tmp_path: Path) -> None:
    path = put(tmp_path, SPERT)
    corpus = read_corpus(path)
    write_corpus(corpus, os.devnull, "spert", overwrite=False)
    link = tmp_path / "link.json"
    link.symlink_to(path)
    with pytest.raises(DataError, match=r"link\.json exists; name another file"):
        write_corpus(corpus, link, "spert", overwrite=False)


def test_a_link_is_written_through_and_stays_a_link(tmp_path: Path) -> None:
    corpus = read_corpus(put(tmp_path, SPERT))
    link, target = tmp_path / "link.json", tmp_path / "target.json"
    link.symlink_to(target)
    for _ in range(2):  # to nothing, to a file
        write_corpus(corpus, link, "spert")
        assert link.is_symlink() and json.loads(target.read_text()) == [SPERT]


@pytest.mark.parametrize("name", WORD_FORMATS)
def test_a_corpus_without_sentences_is_refused_where_the_file_would_be_empty(tmp_path: Path, name: str) -> None:
    corpus = read_corpus(put(tmp_path, {"doc_key": "d", "sentences": [], "ner": [], "relations": []}))
    path = tmp_path / "out.json"
    if name == "dygie":
        write_corpus(corpus, path, name)
        assert read_corpus(path).documents == corpus.documents
        return
    with pytest.raises(DataError, match=f"holds no sentence to write as {name}"):
        write_corpus(corpus, path, name)
    assert not path.exists()


@pytest.mark.parametrize("value", [float("inf"), b"no JSON"])
def test_what_json_has_no_form_for_is_refused_when_written(tmp_path: Path, value: Any) -> None:
    corpus = Corpus((Document("x", (Sentence(("fine",), extra={"score": value}),)),))
    with pytest.raises(DataError, match="cannot be written"):
        write_corpus(corpus, tmp_path / "out.json", "spert")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", WORD_FORMATS)
def test_probabilities_of_predictions_are_written_and_read(tmp_path: Path, name: str) -> None:
    head, tail = Entity(0, 1, "A", probability=0.5), Entity(2, 3, "B", probability=0.25)
    sentence = Sentence(("a", "b", "c"), (head, tail), (Relation("R", head, tail, probability=0.125),))
    write_corpus(Corpus((Document("d", (sentence,)),)), tmp_path / "out.json", name)
    (again,) = read_corpus(tmp_path / "out.json").sentences
    assert [entity.probability for entity in again.entities] == [0.5, 0.25]
    assert again.relations[0].probability == 0.125


@pytest.mark.skipif(not DATA.exists(), reason="needs ../shared/data/extraction")
@pytest.mark.parametrize("file", REAL)
def test_real_corpora_come_back_from_every_format(tmp_path: Path, file: str) -> None:
    corpus = read_corpus(DATA / file)
    for name in WORD_FORMATS:
        write_corpus(corpus, tmp_path / "other.json", name)
        other = read_corpus(tmp_path / "other.json")
        assert other.format == name and plain(other) == plain(corpus)
        assert write_corpus(other, tmp_path / "back.json", corpus.format) == {}
        back = read_corpus(tmp_path / "back.json")
        assert plain(back) == plain(corpus)
        assert [sentence.extra for sentence in back.sentences] == [sentence.extra for sentence in other.sentences]


WORDS = st.one_of(st.sampled_from(["a", "b", "New York", "", "a b", "\u2028", "\t"]), st.text(max_size=3))


@st.composite
def sentences(draw: st.DrawFn) -> Sentence:
    words = draw(st.lists(WORDS, max_size=6))
    entities: list[Entity] = []
    if words:
        spans = st.tuples(st.integers(0, len(words) - 1), st.integers(1, len(words))).filter(lambda s: s[0] < s[1])
        marks = draw(st.lists(st.tuples(spans, st.sampled_from("XYZ")), max_size=5))
        entities = [Entity(start, end, name) for (start, end), name in marks]
    relations = []
    if entities:
        arguments = st.sampled_from([*entities, Entity(0, 1, "")])
        drawn = draw(st.lists(st.tuples(st.sampled_from(["R", "S/T"]), arguments, arguments), max_size=4))
        relations = [Relation(*parts) for parts in drawn]
    return Sentence(tuple(words), tuple(entities), tuple(relations))


@settings(max_examples=40)
@given(
    documents=st.lists(
        st.tuples(st.sampled_from(["", "d", "e", "7"]), st.lists(sentences(), min_size=1, max_size=3)), min_size=1
    )
)
def test_what_is_written_without_a_loss_is_read_as_it_was(
    tmp_path: Path, documents: list[tuple[str, list[Sentence]]]
) -> None:
    corpus = Corpus(tuple(Document(name, tuple(parts)) for name, parts in documents))
    for name in WORD_FORMATS:
        losses = write_corpus(corpus, tmp_path / "out.json", name)
        again = read_corpus(tmp_path / "out.json", format=name)
        assert [sentence.words for sentence in again.sentences] == [sentence.words for sentence in corpus.sentences]
        assert [s.entities for s in again.sentences] == [s.entities for s in corpus.sentences]
        assert [len(s.relations) for s in again.sentences] == [len(s.relations) for s in corpus.sentences]
        if all("empty type" in reason for reason in losses):
            assert plain(again) == plain(corpus)


def test_a_name_that_no_file_system_takes_is_refused(tmp_path: Path) -> None:
    corpus = read_corpus(put(tmp_path, SPERT))
    with pytest.raises(DataError, match="cannot be written"):
        write_corpus(corpus, tmp_path / ("a" * 300), "dygie")
