"""The command line where something is wrong or ends early: what it says, what it keeps, its exit status."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest
from predicted import TEXT, parse_records
from project import ROOT

from spe_dist import predict
from spe_dist.extraction.predicting import files as predicting
from spe_dist.extraction.predicting.extractor import Extractor


def test_what_stands_before_a_bad_line_is_predicted_and_the_error_names_it(run, tmp_path):
    path, output = tmp_path / "bad.jsonl", tmp_path / "out.jsonl"
    path.write_text('{"text": "One here."}\n{"text": "Two here."}\n{"text": \n{"text": "Four here."}\n')
    status, out, err = run(path, "--output", output)
    assert (status, out) == (2, "") and not output.exists()
    assert "error: " in err and "bad.jsonl, line 3 is not JSON" in err and "--skip_bad" in err and ".part" in err
    assert [r["text"] for r in parse_records((tmp_path / "out.jsonl.part").read_text())] == ["One here.", "Two here."]
    status, out, err = run(path, "--skip_bad")
    assert status == 0 and [r["line"] for r in parse_records(out)] == [1, 2, 4]
    assert "lines that are not JSON: 1" in err and "bad.jsonl, line 3" in err and "1 line left out" in err


def test_an_interrupted_run_tells_where_its_predictions_are(run, text_file, tmp_path, monkeypatch):
    _, expected, _ = run(text_file)
    predict_tagged = Extractor.predict_tagged

    def interrupted(self, *arguments, **options):
        yield next(predict_tagged(self, *arguments, **options))
        raise KeyboardInterrupt

    monkeypatch.setattr(Extractor, "predict_tagged", interrupted)
    status, _, err = run(text_file, "--output", tmp_path / "out.jsonl")
    assert status == 130 and "until now, 1 sentence, is in" in err
    assert (tmp_path / "out.jsonl.part").read_text() == expected.splitlines(keepends=True)[0]


def test_closed_standard_streams_are_said_to_be(run, text_file, monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    status, _, err = run()
    assert status == 2 and "standard input is closed; name a file" in err
    monkeypatch.setattr(predicting, "sys", SimpleNamespace(stdout=None, stderr=sys.stderr))
    status, _, err = run(text_file)
    assert status == 2 and "standard output is closed" in err and "--output" in err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["none.txt"], "none.txt does not exist"),
        (["text.txt", "--output", "no/where.jsonl"], "its folder does not exist"),
        (["text.txt", "--output", "text.txt"], "is an input"),
        (["text.txt", "--output", "."], "is a folder"),
        (["text.txt", "--output", "a.jsonl.gz"], "leave .gz away"),
        (["text.txt", "--output", "a", "--html", "a"], "name two files"),
        (["text.txt", "--format", "corpus"], "needs --output"),
        (["--format", "corpus", "--output", "a"], "takes one input file"),
        (["text.txt", "--format", "corpus", "--output", "a"], "which is neither JSON nor"),
        (["text.txt", "--outptu", "a"], "did you mean '--output'"),
        (["text.txt", "--format", "corpus", "--output", "a", "--skip_bad"], "without --skip_bad"),
        ([".", "--output", "text.txt"], "is an input"),
        (["*.txt", "--html", "text.txt"], "is an input"),
        (["text.txt", "--min_probability", "2"], "2 is too large; give at most 1"),
        (["text.txt", "--min_probability", "x"], "'x' is not a number"),
        (["text.txt", "--threads", "x"], "'x' is not a whole number"),
        (["text.txt", "--threads", "0"], "0 is too small; give at least 1"),
        (["text.txt", "--threads", "1000000"], "1000000 is too large; give at most"),
        (["text.txt", "--batch_pieces", "0"], "0 is too small; give at least 1"),
        (["text.txt", "--batch_size", "0"], "0 is too small; give at least 1"),
        (["text.txt", "--min_probability_relations", "-1"], "-1 is too small; give at least 0"),
        (["text.txt", "--lines", "some"], "unknown choice"),
    ],
)
def test_a_wrong_command_line_is_an_error_with_the_remedy(run, text_file, monkeypatch, arguments, told):
    monkeypatch.chdir(text_file.parent)
    status, out, err = run(*arguments)
    assert (status, out) == (2, "") and "error: " in err and told in err
    assert text_file.read_bytes() == TEXT.encode()


def test_a_missing_model_is_an_error(capsys, text_file):
    assert predict.main(["no/model", str(text_file)]) == 2
    assert "no/model is neither a folder nor in the hub" in capsys.readouterr().err


@pytest.mark.slow
def test_a_reader_that_leaves_early_is_no_error(extractor_folder, tmp_path):
    path = tmp_path / "many.txt"
    path.write_text("This is one sentence.\n" * 3000)
    command = f"'{sys.executable}' spe_dist/predict.py '{extractor_folder}' '{path}' --threads 1 | head -n 1"
    result = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, cwd=ROOT)
    assert result.returncode == 0 and len(parse_records(result.stdout.decode())) == 1
    assert b"Traceback" not in result.stderr and b"BrokenPipe" not in result.stderr


@pytest.mark.slow
def test_ctrl_c_ends_several_threads_at_once(extractor_folder, tmp_path):
    output = tmp_path / "out.jsonl"
    command = [sys.executable, "spe_dist/predict.py", str(extractor_folder), "--device", "cpu", "--threads", "2"]
    process = subprocess.Popen(
        [*command, "--output", str(output)], cwd=ROOT, stdin=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdin is not None

    def feed() -> None:
        try:
            while True:
                process.stdin.write(b"John Smith works for IBM in Boston.\n" * 1000)
        except (BrokenPipeError, ValueError):
            return

    threading.Thread(target=feed, daemon=True).start()
    part = tmp_path / "out.jsonl.part"
    deadline = time.monotonic() + 300
    while not (part.is_file() and part.stat().st_size):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130 and b"Traceback" not in err
    assert b"what was predicted until now" in err and not output.exists()
    assert all(json.loads(line)["text"].startswith("John") for line in part.read_text().splitlines())
