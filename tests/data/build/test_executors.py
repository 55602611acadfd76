"""A build that is divided into tasks: the bytes of one that is not, whatever the number of tasks and what was lost."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from shards import contents

from spe_dist.data.build import groups as build_groups
from spe_dist.data.build import many_machines
from spe_dist.data.build.make import make_shards
from spe_dist.errors import ConfigError, DataError, LaunchError

pytest.importorskip("datatrove")
from spe_dist.data.build import executors
from spe_dist.data.build.executors import SlurmOptions, make_shards_divided

OPTIONS = {"language": "de", "block_sentences": 50, "shard_sentences": 250, "held_out": 0.1, "quiet": True}


@pytest.mark.parametrize("vocabulary_of, tasks", [("given", 1), ("trained", 3), ("given", 50)])
def test_any_number_of_tasks_gives_the_bytes_of_an_undivided_build(
    tmp_path, corpus, vocabulary, small_parts, vocabulary_of, tasks
):
    source = {"tokenizer": vocabulary} if vocabulary_of == "given" else {"train_vocab": 100}
    again = tmp_path / "again.txt"  # duplicates, which no vocabulary is trained on
    again.write_bytes(Path(corpus[0]).read_bytes()[: 30 << 10])
    corpus = [*corpus, str(again)]
    whole = make_shards(corpus, str(tmp_path / "whole"), **source, **OPTIONS)
    divided = make_shards_divided(
        corpus, str(tmp_path / "divided"), executor="local", tasks=tasks, processes=2, **source, **OPTIONS
    )
    assert contents(tmp_path / "divided") == contents(tmp_path / "whole") and divided == whole


def test_groups_of_several_parts_are_merged_and_give_the_same_bytes(
    tmp_path, corpus, vocabulary, small_parts, monkeypatch
):
    monkeypatch.setattr(build_groups, "GROUPS_A_TASK", 1)
    merged = []
    merge = build_groups.merge_runs
    monkeypatch.setattr(build_groups, "merge_runs", lambda paths, run: (merged.append(len(paths)), merge(paths, run)))
    make_shards(corpus, str(tmp_path / "whole"), tokenizer=vocabulary, **OPTIONS)
    make_shards_divided(corpus, str(tmp_path / "divided"), executor="local", tasks=3, tokenizer=vocabulary, **OPTIONS)
    assert contents(tmp_path / "divided") == contents(tmp_path / "whole")
    assert max(merged) >= 4 and len(merged) % 2 == 0


@pytest.mark.parametrize(
    "stage", ["measure_files", "plan_groups", "make_groups", "find_ranges", "make_shard", "write_manifest"]
)
def test_a_lost_task_is_made_again_by_the_same_call_and_nothing_else_is(
    tmp_path, corpus, vocabulary, small_parts, monkeypatch, stage
):
    whole = tmp_path / "whole"
    make_shards(corpus, str(whole), tokenizer=vocabulary, **OPTIONS)
    work, calls = getattr(many_machines, stage), []

    def counted(*args, **kwargs):
        calls.append(1)
        return work(*args, **kwargs)

    def lost_once(*args, **kwargs):
        if len(calls) == 1:
            raise KeyboardInterrupt
        return counted(*args, **kwargs)

    def divided() -> None:
        make_shards_divided(corpus, str(tmp_path / "out"), executor="local", tasks=2, tokenizer=vocabulary, **OPTIONS)

    alone = stage in ("plan_groups", "write_manifest")
    if alone:
        calls.append(1)
    monkeypatch.setattr(many_machines, stage, lost_once)
    with pytest.raises(KeyboardInterrupt):
        divided()
    assert not (tmp_path / "out" / "manifest.json").exists()
    monkeypatch.setattr(many_machines, stage, counted)
    divided()
    assert contents(tmp_path / "out") == contents(whole)
    shards = len(list(whole.glob("*.tar")))
    assert len(calls) == (shards if stage == "make_shard" else 2)


def test_a_divided_build_continues_undivided_and_the_other_way(tmp_path, corpus, vocabulary, small_parts, monkeypatch):
    whole = tmp_path / "whole"
    make_shards(corpus, str(whole), tokenizer=vocabulary, **OPTIONS)
    for first, second in (("divided", "whole"), ("whole", "divided")):
        out = tmp_path / f"first_{first}"
        calls = {
            "whole": lambda out=out: make_shards(corpus, str(out), tokenizer=vocabulary, **OPTIONS),
            "divided": lambda out=out: make_shards_divided(
                corpus, str(out), executor="local", tasks=2, tokenizer=vocabulary, **OPTIONS
            ),
        }
        with monkeypatch.context() as patch:
            for module in ("many_machines.make_shard", "stages.make_shard"):
                patch.setattr(f"spe_dist.data.build.{module}", _interrupted)
            with pytest.raises(KeyboardInterrupt):
                calls[first]()
        calls[second]()
        assert contents(out) == contents(whole)


def _interrupted(_task: object) -> None:
    raise KeyboardInterrupt


def test_a_users_error_in_a_task_ends_the_build_with_that_line(tmp_path, corpus, vocabulary):
    path = Path(corpus[0])
    path.write_bytes(path.read_bytes() + b"\xff\xfe\n" * 1_000)
    with pytest.raises(DataError, match="1,000 of 3,000 lines cannot be used"):
        make_shards_divided(corpus, str(tmp_path / "out"), executor="local", tasks=2, tokenizer=vocabulary, quiet=True)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"executor": "ray"}, "executor='ray' is unknown; choose one of local, slurm"),
        ({"tasks": 0}, "tasks=0 does no work"),
        ({"processes": 0}, "processes=0 does no work"),
    ],
)
def test_refuses_what_gives_no_build(tmp_path, corpus, vocabulary, changes, message):
    options = {"executor": "local", "tokenizer": vocabulary, **changes}
    with pytest.raises(ConfigError, match=message):
        make_shards_divided(corpus, str(tmp_path / "out"), **options)
    assert not (tmp_path / "out").exists()


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """Commands in place of Slurm's: sbatch notes its script and gives the next id, squeue shows the file `queue`."""
    folder = tmp_path / "slurm"
    folder.mkdir()
    (folder / "sbatch").write_text(
        f"#!/bin/bash\nPATH=/usr/bin:/bin\ncd {folder}\nid=$((100 + $(ls script.* 2>/dev/null | wc -l)))\n"
        'cp "${@: -1}" script.$id; echo "$*" >args.$id; env >env.$id; echo Submitted batch job $id\n'
    )
    (folder / "squeue").write_text(f"#!/bin/bash\nPATH=/usr/bin:/bin\ncat {folder}/queue 2>/dev/null || true\n")
    for name in ("sbatch", "squeue"):
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setattr(executors, "POLL_S", 0.01)
    return folder


def test_jobs_are_submitted_stage_by_stage_with_the_options_asked_for(tmp_path, corpus, vocabulary, slurm, capsys):
    options = SlurmOptions(time="1:00:00", partition="cpu", memory_gib=3, sbatch={"account": "nlp"})
    made = make_shards_divided(
        corpus,
        str(tmp_path / "out"),
        executor="slurm",
        tasks=4,
        processes=2,
        tokenizer=vocabulary,
        slurm=options,
    )
    assert made is None
    shown = capsys.readouterr().out
    assert "submitted jobs 100, 101, 102, 103, 104, 105, 106; logs in" in shown and "the same command" in shown
    stages = ("measure", "plan", "split", "check", "duplicates", "shards", "manifest")
    for number, (stage, last_task) in enumerate(zip(stages, (3, 0, 3, 0, 3, 3, 0), strict=True), start=100):
        script = (slurm / f"script.{number}").read_text()
        for line in (
            f"job-name=spe-shards-{stage}",
            f"array=0-{last_task}",
            "time=1:00:00",
            "partition=cpu",
            "account=nlp",
            "mem-per-cpu=3G",
            "cpus-per-task=2",
            "kill-on-invalid-dep=yes",
        ):
            assert f"#SBATCH --{line}\n" in script
        assert str(Path(sys.executable).parent) in script and "qos" not in script
        depends = f"--dependency=afterok:{number - 1}" if number > 100 else "--export"
        assert depends in (slurm / f"args.{number}").read_text()
        assert "SLURM_JOB_ID" not in (slurm / f"env.{number}").read_text()


def test_a_build_whose_jobs_still_run_is_left_to_them(tmp_path, corpus, vocabulary, slurm):
    def build(**changes) -> None:
        options = {"tokenizer": vocabulary, "quiet": True, **changes}
        make_shards_divided(corpus, str(tmp_path / "out"), executor="slurm", tasks=1, **options)

    build()
    (slurm / "queue").write_text("99\n103\n105\n")
    for changes in ({}, {"overwrite": True}):
        with pytest.raises(DataError, match="is being made by the Slurm jobs 103, 105; wait for them, or scancel them"):
            build(**changes)
    with pytest.raises(DataError, match="is being made by the Slurm jobs"):
        make_shards(corpus, str(tmp_path / "out"), tokenizer=vocabulary, quiet=True)
    (slurm / "queue").unlink()
    build()
    (slurm / "squeue").unlink()
    with pytest.raises(DataError, match="no squeue here to see whether they still run"):
        make_shards(corpus, str(tmp_path / "out"), tokenizer=vocabulary, quiet=True)


def test_jobs_that_were_submitted_before_one_was_refused_keep_the_folder(tmp_path, corpus, vocabulary, slurm):
    submit = (slurm / "sbatch").read_text()
    (slurm / "sbatch").write_text(submit.replace("cp ", "if [[ $id == 102 ]]; then exit 1; fi; cp "))
    options = {"executor": "slurm", "tokenizer": vocabulary, "quiet": True}
    with pytest.raises(LaunchError, match=r"refuses the stage split .*; jobs 100, 101 were submitted: scancel them"):
        make_shards_divided(corpus, str(tmp_path / "out"), **options)
    (slurm / "sbatch").write_text(submit)
    (slurm / "queue").write_text("101\n")
    with pytest.raises(DataError, match="is being made by the Slurm jobs 101; wait for them, or scancel them"):
        make_shards_divided(corpus, str(tmp_path / "out"), **options)


def test_waiting_for_jobs_that_end_without_a_manifest_names_what_failed(tmp_path, corpus, vocabulary, slurm):
    options = SlurmOptions(wait=True)
    with pytest.raises(LaunchError, match=r"0 of 2 tasks of the stage measure are done \(see .*measure\); the same"):
        make_shards_divided(
            corpus,
            str(tmp_path / "out"),
            executor="slurm",
            tasks=2,
            tokenizer=vocabulary,
            quiet=True,
            slurm=options,
        )


def test_a_cluster_that_refuses_jobs_and_a_machine_without_one_are_named(tmp_path, corpus, vocabulary, slurm, capfd):
    (slurm / "sbatch").write_text("#!/bin/bash\necho invalid account >&2; exit 1\n")
    options = {"executor": "slurm", "tokenizer": vocabulary, "quiet": True}
    with pytest.raises(LaunchError, match="sbatch refuses the stage measure"):
        make_shards_divided(corpus, str(tmp_path / "out"), **options)
    assert "invalid account" in capfd.readouterr().err
    (slurm / "sbatch").unlink()
    with pytest.raises(LaunchError, match="no sbatch on this machine"):
        make_shards_divided(corpus, str(tmp_path / "out"), **options)
