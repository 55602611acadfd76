"""spe predict gives every record of its input an output line, and says what it could not read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from spe_dist import predict


@pytest.fixture
def run(extractor_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """run(content, *options) -> (exit status, records, stderr)"""

    def call(content: str, *options: str) -> tuple[int, list[dict], str]:
        (tmp_path / "in.jsonl").write_text(content)
        arguments = [str(extractor_folder), str(tmp_path / "in.jsonl"), "--output", str(tmp_path / "out.jsonl")]
        status = predict.main([*arguments, "--device", "cpu", "--no-bfloat16", *options])
        out = tmp_path / "out.jsonl"
        records = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
        return status, records, capsys.readouterr().err

    return call


def test_records_without_words_have_a_line_without_words(run) -> None:
    given = [{"text": ""}, {"tokens": []}, {"text": "Ann left Rome."}, {"sentences": []}]
    contents = [{"id": name, **fields} for name, fields in zip("abcd", given, strict=True)]
    for part in (contents, contents[:1]):
        status, records, told = run("\n".join(map(json.dumps, part)))
        assert status == 0 and [record["id"] for record in records] == [record["id"] for record in part]
        empty = [record for record in records if not record["words"]]
        assert f"sentences without words: {len(empty)}" in told
        assert all(record["text"] == "" and record["start"] == record["end"] == 0 for record in empty)


def test_all_records_left_out_are_in_the_summary(run) -> None:
    status, records, told = run('{"text": "Ann left."}\n{"body": 1}\n{"text": \n', "--skip_bad")
    assert status == 0 and len(records) == 1 and "2 lines left out" in told
