"""The command line: what it reads, what it writes, and what it says where something is wrong."""

from __future__ import annotations

import gzip
import json
import os
from dataclasses import replace

import fsspec
from predicted import TEXT, check_places, parse_records

from spe_dist.extraction.formats import read_corpus
from spe_dist.extraction.predicting import report
from spe_dist.extraction.predicting.extractor import Extractor
from spe_dist.extraction.predicting.results import MinProbability

CORPUS = [
    {
        "tokens": ["John", "works", "for", "IBM", "."],
        "entities": [{"type": "A", "start": 0, "end": 1}, {"type": "B", "start": 3, "end": 4}],
        "relations": [{"type": "r", "head": 0, "tail": 1}],
        "orig_id": 5,
    },
    {"tokens": ["Ann", "left"], "entities": [], "relations": [], "orig_id": 6},
]


def test_a_text_file_gives_a_line_for_each_sentence_and_a_summary(run, text_file):
    status, out, err = run(text_file)
    records = parse_records(out)
    assert status == 0
    assert [(r["file"], r["document"], r["line"], r["sentence"]) for r in records] == [
        (str(text_file), 0, 1, 0),
        (str(text_file), 0, 2, 1),
        (str(text_file), 1, 4, 0),
    ]
    for record in records:
        check_places(record, TEXT)
    n_entities, n_relations = (sum(len(r[key]) for r in records) for key in ("entities", "relations"))
    assert n_entities > 0 < n_relations
    assert f"3 sentences, 23 words, {n_entities} entities, {n_relations} relations in" in err
    assert "sentences/s; 0 lines left out" in err


def test_progress_counts_the_sentences_of_batches_that_are_done(run, text_file, monkeypatch):
    monkeypatch.setattr(report, "PROGRESS_SECONDS", 0.0)
    _, _, err = run(text_file, "--batch_size", 2)
    assert [line.split(",")[0] for line in err.splitlines() if line.endswith("sentences/s")] == [
        "2 sentences",
        "3 sentences",
    ]


def test_files_of_a_folder_whose_names_are_not_those_of_text_are_told(run, text_file, tmp_path):
    (tmp_path / "notes.md").write_text("Ada wrote code .\n")
    status, out, err = run(tmp_path)
    assert status == 0 and {record["file"] for record in parse_records(out)} == {str(text_file)}
    assert "left out 1 file of the input folders" in err and "notes.md" in err


def test_a_link_is_written_through(run, text_file, tmp_path):
    _, expected, _ = run(text_file)
    link = tmp_path / "link.jsonl"
    link.symlink_to(tmp_path / "there.jsonl")
    for _ in range(2):  # to nothing, to a file
        assert run(text_file, "--output", link)[0] == 0
        assert link.is_symlink() and (tmp_path / "there.jsonl").read_text(encoding="utf-8") == expected


def test_the_same_comes_from_files_options_between_and_standard_input(run, text_file, tmp_path, monkeypatch):
    _, expected, _ = run(text_file)
    output = tmp_path / "out.jsonl"
    assert run("--output", output, text_file, "--quiet", "--threads", 1) == (0, "", "")
    assert output.read_text(encoding="utf-8") == expected and not list(tmp_path.glob("*.part"))
    packed = tmp_path / "text.gz"
    packed.write_bytes(gzip.compress(TEXT.encode()))
    _, from_packed, _ = run(packed, "--batch_pieces", 1)
    reads, writes = os.pipe()
    os.write(writes, TEXT.encode())
    os.close(writes)
    with open(reads) as pipe:
        monkeypatch.setattr("sys.stdin", pipe)
        _, from_pipe, err = run()
    assert "standard input: text with" in err
    for other in (from_packed, from_pipe):
        records = parse_records(other)
        for record, own in zip(records, parse_records(expected), strict=True):
            for part in (*record["entities"], *record["relations"], *own["entities"], *own["relations"]):
                part["probability"] = round(part["probability"], 2)
            assert record | {"file": ""} == own | {"file": ""}


def test_json_lines_keep_ids_and_order_over_many_batches(run, tmp_path):
    texts = [f"Number {i} is {'very ' * (i % 17)}long." for i in range(200)]
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps({"id": f"n{i}", "body": text}) + "\n" for i, text in enumerate(texts)))
    _, out, _ = run(path, "--text_field", "body", "--batch_pieces", 100)
    records = parse_records(out)
    assert [(record["id"], record["text"]) for record in records] == [(f"n{i}", text) for i, text in enumerate(texts)]


def test_a_corpus_is_written_in_its_own_format_with_gold_replaced(run, tmp_path):
    path, output = tmp_path / "corpus.json", tmp_path / "predicted.json"
    path.write_text(json.dumps(CORPUS))
    status, out, _ = run(path, "--format", "corpus", "--output", output)
    assert (status, out) == (0, "")
    _, lines, _ = run(path)
    gold, predicted = read_corpus(path), read_corpus(output)
    assert predicted.format == gold.format == "spert"
    assert [s.words for s in predicted.sentences] == [s.words for s in gold.sentences]
    for sentence, record in zip(predicted.sentences, parse_records(lines), strict=True):
        assert [[e.start, e.end] for e in sentence.entities] == [e["words"] for e in record["entities"]]
        assert len(sentence.relations) == len(record["relations"])


def test_what_reading_a_corpus_passed_over_is_told(run, tmp_path):
    path = tmp_path / "corpus.json"
    path.write_text(json.dumps({"doc_key": "d", "sentences": [], "ner": [], "relations": []}))
    status, _, err = run(path, "--format", "corpus", "--output", tmp_path / "predicted.json")
    assert status == 0 and f"{path}: documents without sentences: 1" in err


def test_the_page_shows_the_first_sentences_and_says_how_many_are_left_out(run, text_file, tmp_path):
    page = tmp_path / "page.html"
    _, _, err = run(text_file, "--html", page, "--html_sentences", 2)
    content = page.read_text(encoding="utf-8")
    assert content.count('class="drawn"') == 2 and "1 left out" in content and "1 left out" in err
    assert "text.txt, line 1" in content and "A second document" not in content


def test_less_probable_findings_are_left_out(run, text_file):
    _, out, _ = run(text_file)
    probabilities = sorted(e["probability"] for r in parse_records(out) for e in r["entities"])
    limit = probabilities[len(probabilities) // 2]
    _, out, _ = run(text_file, "--min_probability", limit)
    kept = [e["probability"] for r in parse_records(out) for e in r["entities"]]
    assert 0 < len(kept) < len(probabilities) and min(kept) >= limit - 1e-4


def test_entities_and_relations_have_limits_of_their_own(run, text_file):
    _, out, _ = run(text_file)
    limit = min(r["probability"] for record in parse_records(out) for r in record["relations"]) + 1e-4
    _, limited, _ = run(text_file, "--min_probability_relations", limit)
    for whole, kept in zip(parse_records(out), parse_records(limited), strict=True):
        assert kept["entities"] == whole["entities"]
        assert kept["relations"] == [r for r in whole["relations"] if r["probability"] >= limit]
    assert parse_records(limited) != parse_records(out)
    _, out, _ = run(text_file, "--min_probability", 1, "--min_probability_entities", 0)
    assert [record["entities"] for record in parse_records(out)] == [r["entities"] for r in parse_records(limited)]
    assert not any(record["relations"] for record in parse_records(out))


def test_a_model_that_finds_nothing_says_so_and_why(run, text_file, monkeypatch):
    status, out, err = run(text_file, "--min_probability", 1)
    assert status == 0 and len(parse_records(out)) == 3
    assert "3 sentences, 23 words, nothing found in" in err
    assert "nothing found: no entity has a probability of 1 or more; lower --min_probability" in err
    monkeypatch.setattr(MinProbability, "apply", lambda _, sentence: replace(sentence, entities=(), relations=()))
    assert "nothing found: the model marks no entity in this text" in run(text_file)[2]
    monkeypatch.setattr(Extractor, "doubt", lambda _: "found no entity of its dev corpus")
    assert "nothing found: the model found no entity of its dev corpus" in run(text_file)[2]


def test_very_long_sentences_and_words_are_read_and_told_of(run, tmp_path):
    path = tmp_path / "long.txt"
    text = "word " * 3000 + "a" * 20_000 + " end \x00\x07 \ufffd.\n"
    path.write_text(text)
    status, out, err = run(path)
    assert status == 0 and "read in windows" in err
    records = parse_records(out)
    assert sum(len(record["words"]) for record in records) >= 3003
    for record in records:
        check_places(record, text)


def test_an_id_or_a_file_name_that_is_no_utf8_comes_back_as_it_was(run, tmp_path):
    lines = tmp_path / "lines.jsonl"
    lines.write_text('{"text": "John works.", "id": "\\ud800"}\n')
    status, out, _ = run(lines)
    assert status == 0 and parse_records(out)[0]["id"] == "\ud800"
    odd = tmp_path / os.fsdecode(b"\xff.txt")
    odd.write_text("John works.\n")
    status, out, _ = run(odd, "--html", tmp_path / "page.html")
    assert status == 0 and parse_records(out)[0]["file"] == str(odd)
    assert "\\udcff.txt" in (tmp_path / "page.html").read_text()


def test_an_empty_json_list_is_no_text(run, tmp_path):
    (tmp_path / "records").write_text("[]\n")
    assert run(tmp_path / "records")[:2] == (0, "")


def test_an_empty_input_gives_no_line(run, tmp_path):
    for name in ("empty.txt", "empty.jsonl", "empty.json"):
        (tmp_path / name).write_text("\n \n")
        status, out, err = run(tmp_path / name)
        assert (status, out) == (0, "") and "0 sentences" in err


def test_gold_that_the_model_cannot_find_is_said_of_a_corpus(run, tmp_path):
    corpus = tmp_path / "documents.json"
    record = {"doc_key": "d", "sentences": [["John", "left"], ["He", "ran"]], "ner": [[[0, 0, "A"]], [[2, 2, "D"]]]}
    corpus.write_text(json.dumps({**record, "relations": [[], [[2, 2, 0, 0, "r"]]]}))
    status, _, err = run(corpus, "--format", "corpus", "--output", tmp_path / "out.json")
    assert status == 0
    assert "1 of 1 relations cannot be found (recall 0.0% at most): across sentences: 1" in err
    assert "1 of 2 entities cannot be found (recall 50.0% at most): of types that no training sentence has: 1" in err
    assert "entity types of which nothing can be found: D: 1" in err


def test_a_text_behind_a_url_is_predicted_under_its_url(run, tmp_path):
    memory = fsspec.filesystem("memory")
    memory.pipe("/predicted/text.txt", TEXT.encode())
    status, out, err = run("memory://predicted/text.txt", "--cache_dir", tmp_path)
    assert status == 0 and {record["file"] for record in parse_records(out)} == {"memory:///predicted/text.txt"}
    assert "fetching memory:///predicted/text.txt" in err
