"""Shards made on the nodes of a cluster: the bytes of one process, also after tasks were lost."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from project import ROOT
from shards import PIECES, contents, numbered_sentences

from spe_dist.data.build.make import make_shards

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(600)]
SENTENCES = 120_000  # three parts of text


@pytest.fixture
def text(tmp_path) -> Path:
    folder = tmp_path / "text"
    folder.mkdir()
    lines = numbered_sentences(SENTENCES)
    (folder / "a.txt").write_text("\n".join(lines[: SENTENCES // 3]) + "\n")
    (folder / "b.txt").write_text("\n".join(lines[SENTENCES // 3 :]) + "\n")
    return folder


def test_tasks_on_two_nodes_give_the_bytes_of_one_process_after_lost_tasks_too(cluster, text, tmp_path):
    vocabulary = tmp_path / "vocab.txt"
    vocabulary.write_text("\n".join(PIECES) + "\n")
    make_shards([str(text)], str(tmp_path / "alone"), tokenizer=str(vocabulary), shard_sentences=30_000, quiet=True)

    output = tmp_path / "divided"
    options = f"--input {text} --output {output} --tokenizer {vocabulary} --shard_sentences 30000 --tasks 3".split()
    options += ["--slurm_memory_gib", "1", "--slurm_time", "10:00"]
    script = str(ROOT / "slurm" / "make_shards.sh")

    def submit() -> str:
        return cluster.run(script, *options, folder=tmp_path, extra={"SPE_PYTHON": sys.executable})

    shown = submit()
    jobs = re.findall(r"\d+", re.search(r"submitted jobs (.*); logs", shown)[1])
    assert len(jobs) == 7, shown
    refused = cluster.fails(script, *options, folder=tmp_path, extra={"SPE_PYTHON": sys.executable})
    assert "is being made by the Slurm jobs" in refused
    cluster.run("scancel", f"{jobs[2]}_1")  # one task of the stage that splits text into words: what waits for it goes
    cluster.wait_until_empty(240)
    assert not (output / "manifest.json").exists()

    assert "continuing an interrupted build" in submit()
    cluster.wait_until_empty(240)
    logs = [path.read_text() for path in sorted(tmp_path.glob("divided.logs/*/*/slurm_logs/*"))]
    assert contents(output) == contents(tmp_path / "alone"), logs
    assert "complete already" in submit()
