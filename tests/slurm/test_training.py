"""Real training under the job scripts: two nodes of one rank, stopped and continued, against an undisturbed run."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
from project import ROOT
from small_runs import NETWORK, PRETRAINING_NETWORK, comparable_rows

from spe_dist.data.text.vocabulary import save_tokenizer, tokenizer_from_pieces

pytestmark = [pytest.mark.slurm, pytest.mark.distributed, pytest.mark.timeout(900)]

STEPS = 60
SETTINGS = {
    **PRETRAINING_NETWORK,
    "preset": "demo",
    "deepspeed": ROOT / "ds_configs" / "zero2.json",
    "steps": STEPS,
    "global_batch_sentences": 16,
    "micro_batch_sentences": 2,
    "checkpoint_every_steps": 0,
    "evaluate_every_steps": 0,
    "evaluate_sentences": 16,
    "log_every_steps": 1,
}


FINETUNING = {
    **NETWORK,
    "layers": 2,
    "relation_size": 16,
    "batch_sentences": 8,
    "learning_rate": 5e-3,
    "head_learning_rate": 5e-3,
    "epochs": 12,
    "gold_epochs": 1,
    "precision": "float32",
    "log_every_steps": 1,
}


def submit(cluster, folder: Path, shards: Path, **changes: Any):
    """Submit the real script from an empty folder: the default output is a folder of the job there."""
    return submit_script(cluster, folder, "pretrain", {**SETTINGS, "shards": shards, **changes})


def submit_script(cluster, folder: Path, program: str, settings: dict[str, Any]):
    words = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    script = str(ROOT / "slurm" / f"{program}.sh")
    return cluster.submit(folder, "--nodes=2", "--ntasks-per-node=1", script, *words, SPE_PYTHON=sys.executable)


def output_of(job) -> Path:
    (output,) = (job.log.parent / "runs").glob(f"spe-*-{job.number}")
    return output


def rows(job) -> list[dict[str, Any]]:
    """What training measured in each step, but for times and memory."""
    if not list((job.log.parent / "runs").glob(f"spe-*-{job.number}")):
        return []
    return [row for row in comparable_rows(output_of(job)) if row["kind"] == "train"]


def wait_for_step(job, step: int) -> int:
    return job.wait_for(lambda: (found := rows(job)) and found[-1]["step"] >= step and found[-1]["step"], 240)


def saved_step(job) -> int:
    return int((output_of(job) / "checkpoints" / "latest").read_text().removeprefix("step_"))


@pytest.mark.slow
def test_requeued_and_timed_out_in_the_middle_it_ends_with_the_losses_of_an_undisturbed_run(
    cluster, demo_shards, tmp_path
):
    undisturbed = submit(cluster, tmp_path, demo_shards)
    assert undisturbed.wait_for_state("COMPLETED", "FAILED", timeout_s=400) == "COMPLETED", undisturbed.text

    job = submit(cluster, tmp_path, demo_shards)
    wait_for_step(job, 5)
    cluster.run("scontrol", "requeue", job.number)
    job.start_again()
    first_stop = saved_step(job)
    assert 5 <= first_stop < STEPS

    wait_for_step(job, first_stop + 2)
    cluster.run("scancel", "--batch", "--signal=USR1", job.number)  # what --signal=B:USR1 does before the time limit
    job.start_again()
    second_stop = saved_step(job)
    assert first_stop < second_stop < STEPS

    assert job.wait_for_state("COMPLETED", "FAILED", timeout_s=400) == "COMPLETED", job.text
    assert job.field("Restarts") == "2"
    assert [row["step"] for row in rows(job)] == list(range(1, STEPS + 1))
    assert rows(job) == rows(undisturbed)
    for words in ("start 1,", "start 2,", "start 3,", "rank  host", f"finished at step {STEPS}"):
        assert words in job.text, job.text
    assert job.text.count("stopped as asked (SIG") == 2


@pytest.mark.slow
@pytest.mark.long
def test_a_job_that_loses_a_node_trains_on_with_one_and_then_with_both_to_the_losses_of_an_undisturbed_run(
    cluster, demo_shards, tmp_path
):
    given = {**SETTINGS, "shards": demo_shards, "precision": "float32", "steps": 150, "checkpoint_every_steps": 4}
    words = [word for name, value in given.items() for word in (f"--{name}", str(value))]
    options = ["--nodes=1-2", "--mincpus=2", str(ROOT / "slurm" / "pretrain.sh"), *words]
    variables = {"SPE_PYTHON": sys.executable, "SPE_TASKS_PER_NODE": "1"}
    undisturbed = cluster.submit(tmp_path, *options, **variables)
    assert undisturbed.wait_for_state("COMPLETED", "FAILED", timeout_s=400) == "COMPLETED", undisturbed.text

    job = cluster.submit(tmp_path, *options, **variables)
    wait_for_step(job, 9)
    cluster.lose("vn2")
    job.start_again()
    alone_from = saved_step(job)
    job.wait_for(lambda: "1 node(s) vn1" in job.text, 240)
    wait_for_step(job, alone_from + 9)
    cluster.bring_back("vn2")
    cluster.run("scontrol", "requeue", job.number)
    job.start_again()
    assert job.wait_for_state("COMPLETED", "FAILED", timeout_s=400) == "COMPLETED", job.text
    assert job.field("Restarts") == "2"
    assert [line for line in ("start 1,", "start 2,", "start 3,") if line in job.text] == [
        "start 1,",
        "start 2,",
        "start 3,",
    ]
    assert [row["step"] for row in rows(job)] == list(range(1, 151))
    for mine, expected in zip(rows(job), rows(undisturbed), strict=True):
        for name in ("learning_rate", "sentences", "masked_pieces", "permuted_spans", "queue_fill"):
            assert mine[name] == expected[name], (name, mine["step"])
        for name in ("tbo_loss", "spo_loss", "cspo_loss"):
            assert mine[name] == pytest.approx(expected[name], rel=1e-3), (name, mine["step"])


@pytest.mark.slow
def test_a_killed_rank_ends_the_job_with_an_error_and_no_requeue(cluster, demo_shards, tmp_path):
    job = submit(cluster, tmp_path, demo_shards, steps=100_000)
    wait_for_step(job, 2)
    variables = {"SLURM_JOB_ID": job.number, "SLURM_PROCID": "1"}
    rank = next(
        process
        for process in psutil.process_iter(["cmdline", "environ"])  # None where a process ends meanwhile
        if "spe_dist.pretrain" in (process.info["cmdline"] or ())
        and variables.items() <= (process.info["environ"] or {}).items()
        and process.parent().name().startswith("slurmstepd")
    )
    rank.kill()
    job.wait_for_state("FAILED", timeout_s=60)
    assert job.field("Restarts") == "0"


@pytest.mark.slow
def test_a_requeued_fine_tuning_ends_with_the_losses_and_scores_of_an_undisturbed_one(cluster, demo_corpus, tmp_path):
    sentences = json.loads((demo_corpus / "extraction" / "train.json").read_text())[:52]
    (tmp_path / "train.json").write_text(json.dumps(sentences[:40]))
    (tmp_path / "dev.json").write_text(json.dumps(sentences[40:]))
    words = sorted({word for sentence in sentences for word in sentence["tokens"]})
    tokenizer = tokenizer_from_pieces(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words], do_lower_case=False)
    save_tokenizer(tokenizer, tmp_path / "tokenizer")
    files = {"train": "train.json", "dev": "dev.json", "tokenizer": "tokenizer"}

    undisturbed = submit_script(cluster, tmp_path, "finetune", {**FINETUNING, **files})
    assert undisturbed.wait_for_state("COMPLETED", "FAILED", timeout_s=400) == "COMPLETED", undisturbed.text
    job = submit_script(cluster, tmp_path, "finetune", {**FINETUNING, **files})
    wait_for_step(job, 3)
    cluster.run("scontrol", "requeue", job.number)
    job.start_again()
    assert job.wait_for_state("COMPLETED", "FAILED", timeout_s=400) == "COMPLETED", job.text
    assert job.field("Restarts") == "1"
    assert rows(job) == rows(undisturbed)
    scores = [json.loads((output_of(ended) / "scores.json").read_text())["dev"] for ended in (job, undisturbed)]
    assert scores[0] == scores[1]
