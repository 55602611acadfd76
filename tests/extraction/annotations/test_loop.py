"""Predict on raw text, correct in a tool of annotation, train again: nothing moves on the way."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from corpora import changed, put
from hypothesis import given
from hypothesis import strategies as st
from project import SHARED

from spe_dist import predict
from spe_dist.config.finetuning import DataConfig
from spe_dist.errors import DataError
from spe_dist.extraction.corpora.corpus import Corpus, Sentence
from spe_dist.extraction.formats import read_corpus, write_corpus
from spe_dist.extraction.predicting.extractor import Extractor
from spe_dist.extraction.predicting.text_input import InputSettings
from spe_dist.extraction.scoring.scores import score
from spe_dist.finetuning import data as training_data

DATA = SHARED / "data/extraction"

TEXTS = {
    "a/notes.txt": (
        "\U0001f600 John Smith works for\nIBM.  He likes \U0001f1e9\U0001f1ea Boston.\n\n\n"
        "A second one, with Ann Lee.\n"
    ),
    "b.txt": "\ufeffOne line.\r\nAnother \U0001f389 line with words.\r\n",
}


@pytest.fixture(scope="module")
def extractor(extractor_folder: Path) -> Extractor:
    return Extractor.from_pretrained(extractor_folder, "cpu", bfloat16=False)


def predicted(extractor: Extractor, path: Path, inputs: Path) -> list[dict[str, Any]]:
    """The records of `spe predict`, written to a file."""
    sentences = list(extractor.predict_files(inputs, InputSettings()))
    path.write_text("".join(f"{sentence.to_json()}\n" for sentence in sentences))
    return [sentence.to_dict() for sentence in sentences]


def marks(sentences: Iterable[Sentence]) -> list[Any]:
    return [(s.words, s.entities, [(r.type, r.head, r.tail) for r in s.relations]) for s in sentences]


@pytest.fixture(scope="module")
def raw(extractor: Extractor, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Corpus, list[dict[str, Any]]]:
    """A folder of texts, and what was predicted on it as a corpus and as records."""
    folder = tmp_path_factory.mktemp("raw")
    for name, text in TEXTS.items():
        (folder / "texts" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "texts" / name).write_bytes(text.encode())
    records = predicted(extractor, folder / "out.jsonl", folder / "texts")
    return folder, read_corpus(folder / "out.jsonl"), records


def test_what_predict_writes_is_a_corpus_of_the_files_that_were_read(
    raw: tuple[Path, Corpus, list[dict[str, Any]]],
) -> None:
    folder, corpus, records = raw
    assert corpus.format == "predicted" and not corpus.notices
    assert [document.id for document in corpus.documents] == [str(folder / "texts" / name) for name in TEXTS]
    assert [s.words for s in corpus.sentences] == [tuple(record["words"]) for record in records]
    assert sum(len(s.entities) for s in corpus.sentences) == sum(len(record["entities"]) for record in records) > 0
    assert sum(len(s.relations) for s in corpus.sentences) == sum(len(record["relations"]) for record in records) > 0
    for document, text in zip(corpus.documents, TEXTS.values(), strict=True):
        plain = text.removeprefix("\ufeff").replace("\r\n", " \n")
        assert plain.startswith(document.text or "?") and not plain[len(document.text or "") :].strip()


@pytest.mark.parametrize("name", ["brat", "doccano", "plain"])
def test_predictions_come_back_from_every_tool_at_their_characters(
    raw: tuple[Path, Corpus, list[dict[str, Any]]], tmp_path: Path, name: str
) -> None:
    _, corpus, records = raw
    losses = write_corpus(corpus, tmp_path / "out", name)
    found = len([item for record in records for item in (*record["entities"], *record["relations"])])
    assert losses == ({} if name == "plain" else {"probabilities of entities and relations": found})
    again = read_corpus(tmp_path / "out")
    assert again.format == name and marks(again.sentences) == marks(corpus.sentences)
    texts = dict(zip(TEXTS, (document.text for document in again.documents), strict=True))
    for record in records:
        text = next(text for file, text in texts.items() if record["file"].endswith(file))
        for entity in record["entities"]:
            assert text is not None and text[entity["start"] : entity["end"]] == entity["text"]


def test_predictions_on_texts_and_records_are_scored_against_what_was_corrected_in_brat(
    extractor: Extractor, raw: tuple[Path, Corpus, list[dict[str, Any]]], tmp_path: Path
) -> None:
    folder, _, _ = raw
    (folder / "r.jsonl").write_text("".join(json.dumps({"text": f"Ann Lee met {n}."}) + "\n" for n in range(12)))
    (folder / "c.jsonl").write_text(json.dumps({"id": 7, "text": "John Smith works for IBM."}) + "\n")
    sentences = list(extractor.predict_files([folder / "texts", folder / "r.jsonl", folder / "c.jsonl"]))
    (tmp_path / "out.jsonl").write_text("".join(f"{sentence.to_json()}\n" for sentence in sentences))
    corpus = read_corpus(tmp_path / "out.jsonl")
    write_corpus(corpus, tmp_path / "out", "brat")
    gold = read_corpus(tmp_path / "out")
    assert [s.words for s in gold.sentences] != [s.words for s in corpus.sentences]
    scores = score(gold, corpus)
    assert scores.entity.gold > 0 and scores.relation.gold > 0
    assert scores.entity.f1 == scores.ent_rel.f1 == 1


def test_a_correction_in_the_tool_is_what_is_trained_on(
    raw: tuple[Path, Corpus, list[dict[str, Any]]], tmp_path: Path
) -> None:
    _, corpus, _ = raw
    write_corpus(corpus, tmp_path / "out", "brat")
    text = (tmp_path / "out/a/notes.txt").read_bytes().decode()
    start = text.index("Boston")
    (tmp_path / "out/a/notes.ann").write_text(f"T9\tCity {start} {start + 6}\tBoston\n")
    assert sorted(path.name for path in (tmp_path / "out").rglob("*.*")) == [
        "annotation.conf",
        "b.ann",
        "b.txt",
        "notes.ann",
        "notes.txt",
    ]
    [first, *_] = read_corpus(tmp_path / "out").documents
    assert [(" ".join(s.words[e.start : e.end]), e.type) for s in first.sentences for e in s.entities] == [
        ("Boston", "City")
    ]


def test_records_of_json_are_texts_of_their_own(extractor: Extractor, tmp_path: Path) -> None:
    given = put(tmp_path, {"id": 3, "text": "Hi."}, {"id": 4, "text": "   Ann left IBM."}, "Bare text.")
    predicted(extractor, tmp_path / "out.jsonl", given)
    corpus = read_corpus(tmp_path / "out.jsonl")
    assert [(d.id, d.text) for d in corpus.documents] == [
        ("3", "Hi."),
        ("4", "   Ann left IBM."),
        (str(given), "Bare text."),
    ]


def test_what_was_found_in_memory_is_written_too(extractor: Extractor, tmp_path: Path) -> None:
    found = extractor.predict(["John Smith works. He sleeps.", "Ann left IBM."])
    put(tmp_path, *(sentence.to_dict() for sentences in found for sentence in sentences))
    corpus = read_corpus(tmp_path / "file.json")
    assert [document.text for document in corpus.documents] == ["John Smith works. He sleeps.", "Ann left IBM."]
    write_corpus(corpus, tmp_path / "out", "brat")
    assert (tmp_path / "out/2.txt").read_text() == "Ann left IBM."


def test_predictions_in_place_of_gold_are_written_at_the_characters_of_the_text(
    extractor: Extractor, tmp_path: Path
) -> None:
    gold = {
        "id": "x",
        "text": "\U0001f600 John works. He  likes IBM.",
        "entities": [{"start": 2, "end": 6, "type": "P"}],
    }
    corpus = read_corpus(put(tmp_path, gold))
    found = extractor.predict_corpus(corpus)
    assert write_corpus(found, tmp_path / "out.jsonl", "plain") == {}
    again = read_corpus(tmp_path / "out.jsonl")
    assert marks(again.sentences) == marks(found.sentences) and again.documents[0].text == gold["text"]


RECORD = {
    "file": "x.txt", "document": 0, "line": 1, "sentence": 0, "text": "Ann left.", "start": 0, "end": 9,
    "words": ["Ann", "left", "."], "word_offsets": [[0, 3], [4, 8], [8, 9]],
    "entities": [{"type": "P", "text": "Ann", "start": 0, "end": 3, "words": [0, 1], "probability": 0.5}],
    "relations": [{"type": "r", "head": 0, "tail": 0, "probability": 0.5}],
}  # fmt: skip


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (["text"], "Anna left.", r"it has 10 characters and goes from 0 to 9; correct predictions in a tool"),
        (["relations", 0, "head"], 1, "the sentence has 1 entities"),
        (["start"], 10**9, "goes from 1000000000 to 9"),
        (["entities", 0, "probability"], 2, "a probability is a number from 0 to 1"),
        (["word_offsets", 0], [3], r"word_offsets\[0\]"),
    ],
)
def test_edited_records_are_refused(tmp_path: Path, keys: list[str | int], value: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_corpus(put(tmp_path, changed(RECORD, keys, value)))


def test_a_sentence_far_behind_the_last_one_is_refused(tmp_path: Path) -> None:
    far = 10**12
    record = {**RECORD, "start": far, "end": far + 9, "word_offsets": [], "entities": [], "relations": []}
    with pytest.raises(DataError, match="the sentence before it ends at 9"):
        read_corpus(put(tmp_path, RECORD, record))


def test_doccano_gets_ids_for_all_texts_and_names_them(tmp_path: Path) -> None:
    text = {
        "text": "Ann left IBM.",
        "entities": [[0, 3, "P"], [9, 12, "O"]],
        "relations": [{"head": 0, "tail": 1, "type": "left"}],
    }
    corpus = read_corpus(put(tmp_path, {**text, "id": "n1"}, {**text, "id": "n2"}))
    write_corpus(corpus, tmp_path / "out.jsonl", "doccano")
    records = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [[entity["id"] for entity in record["entities"]] for record in records] == [[1, 2], [3, 4]]
    assert records[1]["relations"] == [{"id": 2, "from_id": 3, "to_id": 4, "type": "left"}]
    assert [document.id for document in read_corpus(tmp_path / "out.jsonl").documents] == ["n1", "n2"]
    without = read_corpus(put(tmp_path, {**text, "relations": []}))
    write_corpus(without, tmp_path / "out.jsonl", "doccano")
    assert json.loads((tmp_path / "out.jsonl").read_text())["label"] == [[0, 3, "P"], [9, 12, "O"]]


@pytest.mark.skipif(not DATA.is_dir(), reason="needs the corpora beside the project")
@pytest.mark.parametrize("file", ["conll04/dev.json", "scierc/dev.json"])
def test_real_corpora_keep_every_word_in_the_plain_form_and_every_label_in_tools(tmp_path: Path, file: str) -> None:
    corpus = read_corpus(DATA / file)
    for name in ("plain", "brat", "doccano"):
        write_corpus(corpus, tmp_path / name, name)
        again = read_corpus(tmp_path / name)
        assert name != "plain" or marks(again.sentences) == marks(corpus.sentences)
        assert _types(again) == _types(corpus)


def _types(corpus: Corpus) -> Counter[str]:
    """Types of entities and relations, those across sentences too."""
    items: list[Any] = [item for s in corpus.sentences for item in (*s.entities, *s.relations)]
    items += [item for d in corpus.documents for item in (*d.cross_entities, *d.cross_relations)]
    return Counter(item.type for item in items)


PIECES = st.text(alphabet="ab \n\r\t\u00e9\U0001f389", min_size=1, max_size=4)


@given(st.lists(PIECES, min_size=1, max_size=8), st.data())
def test_brat_gives_back_what_it_was_given(tmp_path: Path, pieces: list[str], data: st.DataObject) -> None:
    text = "".join(["a", *pieces])
    place = st.tuples(st.integers(0, len(text)), st.integers(0, len(text))).map(sorted)
    spans = [
        {"start": start, "end": end, "type": data.draw(st.sampled_from(["P", "W"]))}
        for start, end in data.draw(st.lists(place, max_size=4))
        if text[start:end].strip()
    ]
    number = st.integers(0, max(0, len(spans) - 1))
    ends = data.draw(st.lists(st.tuples(number, number), max_size=3)) if spans else []
    relations = [{"head": head, "tail": tail, "type": "r"} for head, tail in ends]
    path = tmp_path / "given.jsonl"
    path.write_text(json.dumps({"text": text, "entities": spans, "relations": relations}), encoding="utf-8")
    corpus = read_corpus(path)
    assert write_corpus(corpus, tmp_path / "out", "brat") == {}
    again = read_corpus(tmp_path / "out")
    assert (tmp_path / "out/1.txt").read_bytes().decode() == text
    assert marks(again.sentences) == marks(corpus.sentences)
    assert again.documents[0].cross_relations == corpus.documents[0].cross_relations


def test_a_folder_of_brat_is_trained_on_and_predicted_on(
    extractor_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path, {"id": "n", "text": "Ann left IBM. Bo stayed.", "entities": [[0, 2, "P"]]}, name="given.jsonl")
    write_corpus(read_corpus(tmp_path / "given.jsonl"), tmp_path / "folder", "brat")
    folder = str(tmp_path / "folder")
    for cut_words, found in (("widen", 1), ("drop", 0)):
        config = replace(DataConfig(), train=folder, cut_words=cut_words)
        assert sum(len(s.entities) for s in training_data._read("train", folder, config).sentences) == found
    with pytest.raises(DataError, match=r"train=.* is a folder without \.ann files"):
        (tmp_path / "empty").mkdir()
        training_data._read("train", str(tmp_path / "empty"), DataConfig())
    out = str(tmp_path / "out.jsonl")
    for further in ([], ["--entities", "given"]):
        arguments = [str(extractor_folder), folder, "--format", "corpus", "--output", out, "--device", "cpu", *further]
        assert predict.main([*arguments, "--no-bfloat16"]) == 0
        assert "has the format plain, in which predictions on brat are written" in capsys.readouterr().err
        assert [s.words for s in read_corpus(out).sentences] == [s.words for s in read_corpus(folder).sentences]
