"""spe corpus as a user types it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from corpora import WORD_FORMATS
from project import ROOT, SHARED

from spe_dist.cli import corpus
from spe_dist.extraction.formats import read_corpus

DATA = SHARED / "data/extraction"
DOCUMENT = {
    "doc_key": "d1",
    "sentences": [["Ada", "Lovelace", "wrote", "code"], ["In", "London", "."]],
    "ner": [[[0, 1, "Person"], [1, 1, "Name"], [3, 3, "Work"]], [[5, 5, "Place"]]],
    "relations": [[[0, 1, 3, 3, "Made"], [3, 3, 5, 5, "In"]], []],
    "clusters": [],
}


@pytest.fixture
def tool() -> ModuleType:
    return corpus


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "train.json"
    path.write_text(json.dumps(DOCUMENT), encoding="utf-8")
    return path


def test_help_needs_no_torch() -> None:
    program = "import sys; from spe_dist.cli.main import main\ntry: main(['corpus', '--help'])\n"
    program += "finally: assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0 and "inspect" in done.stdout and not done.stderr


def test_inspect_prints_one_column_a_file(
    tool: ModuleType, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "dev.json").write_text(json.dumps(DOCUMENT), encoding="utf-8")
    assert tool.main(["inspect", str(file), str(tmp_path / "dev.json")]) == 0
    rows = {line[:50].strip(): line.split()[-2:] for line in capsys.readouterr().out.splitlines() if line}
    assert next(iter(rows.values())) == ["train", "dev"]
    assert rows["sentences"] == ["2", "2"] and rows["words"] == ["7", "7"]
    assert rows["Person"] == ["1", "1"] and rows["pairs, one inside the other"] == ["1", "1"]
    assert rows["across sentences"] == rows["lost: across sentences"] == ["1", "1"]
    assert rows["Relation"] == ["50.0%", "50.0%"] and rows["Entity"] == ["75.0%", "75.0%"]


def test_inspect_json_is_json_with_all_counts(tool: ModuleType, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tool.main(["inspect", "--json", str(file)]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["corpus"] is None and report["checks"] == []
    assert report["files"][0]["counts"]["cross_relations"] == 1
    assert report["files"][0]["ceiling"]["relation"] == {
        "recall": 0.5,
        "gold": 2,
        "lost": {"across sentences": 1},
        "lost_types": {"In": 1},
    }
    assert report["files"][0]["entity_types"] == {"Name": 1, "Person": 1, "Place": 1, "Work": 1}


@pytest.mark.parametrize("name", WORD_FORMATS)
def test_convert_writes_each_format_and_says_what_it_has_no_place_for(
    tool: ModuleType, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    output = tmp_path / "out.json"
    assert tool.main(["convert", str(file), str(output), "--to", name]) == 0
    said = capsys.readouterr().out
    assert f"(dygie) -> {output} ({name}): 2 sentences, 4 entities, 2 relations" in said
    assert ("relations across sentences, kept in 'document_fields', which other tools pass over: 1" in said) == (
        name != "dygie"
    )
    again = read_corpus(output)
    assert again.format == name and len(again.documents[0].cross_relations) == 1


def test_convert_refuses_to_overwrite_unless_allowed(
    tool: ModuleType, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = file.read_bytes()
    assert tool.main(["convert", str(file), str(file), "--to", "spert"]) == 2
    assert "--overwrite" in capsys.readouterr().err and file.read_bytes() == before
    assert tool.main(["convert", str(file), str(file), "--to", "spert", "--overwrite"]) == 0
    assert read_corpus(file).format == "spert"


def test_convert_counts_what_inspect_counts_also_across_sentences(
    tool: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = {
        **DOCUMENT,
        "ner": [[[0, 1, "Person"], [3, 4, "Work"]], [[5, 5, "Place"]]],
        "relations": [[[0, 1, 5, 5, "In"], [0, 1, 3, 4, "Made"]], []],
    }
    path = tmp_path / "cross.json"
    path.write_text(json.dumps(record))
    assert tool.main(["convert", str(path), str(tmp_path / "out.json"), "--to", "dygie"]) == 0
    assert "2 sentences, 3 entities, 2 relations" in capsys.readouterr().out


def test_an_output_that_is_no_place_for_a_file_is_named_with_its_reason_alone(
    tool: ModuleType, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = tmp_path / "missing" / "out.json"
    remedy = "check the folder, its permissions and space"
    errors = {
        file: f"{file} exists; name another file, or allow it to be overwritten (--overwrite)",
        tmp_path: f"{tmp_path} is a folder; name a file in it",
        missing: f"{missing} cannot be written (No such file or directory); {remedy}",
    }
    for output, error in errors.items():
        assert tool.main(["convert", str(file), str(output), "--to", "spert"]) == 2
        assert capsys.readouterr().err == f"error: {error}\n"


def test_convert_to_standard_output_writes_the_corpus_there_and_the_summary_elsewhere(
    file: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "spe_dist", "corpus", "convert", str(file), "/dev/stdout", "--to", "dygie"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0 and json.loads(done.stdout) == DOCUMENT
    assert "-> /dev/stdout (dygie): 2 sentences, 4 entities, 2 relations" in done.stderr
    kept = tmp_path / "kept.jsonl"
    kept.write_text("kept\n")
    with kept.open("a") as output:
        subprocess.run(command, stdout=output, stderr=subprocess.DEVNULL, check=True)
    first, second = kept.read_text().splitlines()
    assert first == "kept" and json.loads(second) == DOCUMENT


def test_convert_to_a_pipe_whose_reader_leaves_early_is_no_error(file: Path) -> None:
    program = f"{sys.executable} -m spe_dist corpus convert {file} /dev/stdout --to dygie | true"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0 and "error" not in done.stderr


def test_users_errors_are_one_line_and_exit_with_2(
    tool: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bad.json"
    path.write_text('{"tokens": ["a"], "entities": [{"type": "X", "start": 0, "end": 2}], "relations": []}')
    for arguments in (["inspect", str(path)], ["convert", str(path), str(tmp_path / "out"), "--to", "dygie"]):
        assert tool.main(arguments) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"error: {path}, line 1: entities[0]") and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_reader_that_stops_early_is_no_error(file: Path) -> None:
    command = f"{sys.executable} -m spe_dist corpus inspect {file} | true"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0 and not done.stderr


@pytest.mark.skipif(not DATA.exists(), reason="needs ../shared/data/extraction")
def test_inspect_checks_a_known_corpus_and_warns_on_a_mismatch(
    tool: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tool.main(["inspect", *(str(DATA / f"conll04/{split}.json") for split in ("train", "dev", "test"))]) == 0
    printed = capsys.readouterr()
    assert printed.out.count("of CoNLL04 as published") == 3 and not printed.err
    items = json.loads((DATA / "conll04/dev.json").read_text(encoding="utf-8"))
    (tmp_path / "dev.json").write_text(json.dumps(items[1:]), encoding="utf-8")
    assert tool.main(["inspect", str(tmp_path / "dev.json")]) == 0
    assert "warning: " in (error := capsys.readouterr().err) and "231" in error


def test_types_that_differ_in_case_or_unicode_form_are_named(
    tool: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, kind in (("train", "Caf\u00e9"), ("test", "CAFE\u0301")):
        record = {"tokens": ["a"], "entities": [{"type": kind, "start": 0, "end": 1}], "relations": []}
        (tmp_path / f"{name}.json").write_text(json.dumps(record))
    assert tool.main(["inspect", str(tmp_path / "train.json"), str(tmp_path / "test.json")]) == 0
    assert "types that look alike: CAFE\u0301, Caf\u00e9" in capsys.readouterr().out
