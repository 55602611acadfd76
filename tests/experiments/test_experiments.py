"""The runner of experiments and its command; fake_piece.py stands for the commands of the pieces."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest
from small_experiment import calls, made, once_there, replace, run

from spe_dist.cli import experiments
from spe_dist.errors import ConfigError, DataError
from spe_dist.experiments.file import read_experiment
from spe_dist.experiments.plan import make_plan, output_folder
from spe_dist.experiments.record import Requests, read_record
from spe_dist.experiments.runner import FAILED, FINISHED, STOPPED, Runner, describe_plan


def test_every_piece_runs_once_after_what_it_needs_and_is_then_skipped(place: Path) -> None:
    status, text = run(place)
    order = made(place)
    assert status == FINISHED
    assert len(order) == len(set(order)) == 5 + 2 * (3 + 2 + 2)
    for earlier, later in (
        ("shards/web", "pretraining/spe"),
        ("pretraining/spe", "exports/spe-query"),
        ("pretraining/spe", "exports/spe-key"),
        ("exports/spe-query", "rows/spe/news-100/seed-0"),
        ("exports/spe-key", "rows/key/news-100/seed-0"),
        ("distant/ds", "rows/ds/news-100/seed-0"),
        ("rows/ds/news-100/seed-0", "rows/bert/news-100/seed-1"),
    ):
        assert order.index(earlier) < order.index(later)
    assert "[19/19] finished" in text and "all 19 pieces are finished" in text
    status, text = run(place)
    assert status == FINISHED and made(place) == []
    assert "19 pieces of work, 19 finished" in text


def test_what_only_finished_pieces_have_needed_is_not_made_again(place: Path) -> None:
    run(place, only=("rows/spe/*/seed-0",))
    made(place)
    for piece in ("pretraining/spe", "shards/web"):
        shutil.rmtree(place / "OUT" / piece)
    assert "3 pieces of work, 3 finished" in run(place, only=("rows/spe/*/seed-0",))[1] and made(place) == []
    assert run(place, only=("rows/spe/*",))[0] == FINISHED
    assert made(place) == ["rows/spe/news-100/seed-1", "rows/spe/news-50/seed-1"]
    run(place, only=("rows/key/*/seed-0",))  # wants an export that is not there
    assert made(place) == ["shards/web", "pretraining/spe", "exports/spe-key", "rows/key/news-100/seed-0"]


def test_what_others_wait_for_starts_first_where_pieces_run_side_by_side(place: Path) -> None:
    experiment = read_experiment(place / "file.yaml")
    plan = make_plan(experiment)
    requests = Requests(plan, output_folder(experiment))
    assert [piece.id for piece in Runner(plan, requests, 1).order] == list(plan.pieces)
    order = [piece.id for piece in Runner(plan, requests, 2).order]
    shared = [i for i in order if not i.startswith("rows/")]
    assert order.index("rows/bert/news-100/seed-0") > max(map(order.index, shared))
    status, text = run(place, jobs=2)
    assert status == FINISHED and "all 19 pieces are finished" in text and sorted(made(place)) == sorted(plan.pieces)


def test_commands_say_start_share_seed_and_settings_of_their_row(place: Path) -> None:
    run(place, only=("rows/*/seed-1",), jobs=3)
    (bert,) = calls(place, "rows/bert/news-50/seed-1")
    assert bert.startswith("--train TRAIN --dev TRAIN --test TRAIN --start some-bert --output ")
    assert "--epochs 6.0" in bert and "--learning_rate 0.0001" in bert and bert.endswith("--resume auto")
    assert "--seed 1 --train_share 0.5" in bert
    out = place / "OUT"
    assert "--epochs 3.0" in calls(place, "rows/cnn/news-100/seed-1")[0]
    assert "--without_cnn true" in calls(place, "rows/cnn/news-100/seed-1")[0]
    assert f"--start {out}/exports/spe-key/run " in calls(place, "rows/key/news-100/seed-1")[0]
    assert f"--start {out}/distant/ds/run/model " in calls(place, "rows/ds/news-100/seed-1")[0]
    assert f"--shards {out}/shards/web/run --encoder some-bert --output" in calls(place, "pretraining/spe")[0]
    assert (
        calls(place, "exports/spe-key")[0]
        == f"--encoder key {out}/pretraining/spe/run {out}/exports/spe-key/run --overwrite"
    )


def test_only_chooses_rows_tables_and_pieces_with_what_they_need(place: Path) -> None:
    run(place, only=("BERT",))
    assert made(place) == [f"rows/bert/news-{share}/seed-{seed}" for seed in (0, 1) for share in (100, 50)]
    run(place, only=("rows/key/*/seed-1",))
    assert made(place) == ["shards/web", "pretraining/spe", "exports/spe-key", "rows/key/news-100/seed-1"]
    run(place, only=("exports/*",))
    assert made(place) == ["exports/spe-query"]
    with pytest.raises(ConfigError, match=r"'SPI'.*did you mean 'SPE'"):
        run(place, only=("SPI",))
    with pytest.raises(ConfigError, match="no piece of work has such an id"):
        run(place, only=("rows/spi/*",))


def test_a_failed_piece_is_reported_and_the_others_go_on(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_FAIL", "pretraining/spe")
    status, text = run(place)
    assert status == FAILED
    assert "FAILED: pre-training spe (exit status 3)" in text
    assert "    | line 2\n    | error: asked to fail" in text
    assert "1 of 19 pieces failed: pretraining/spe; 10 more need them" in text
    assert len(made(place)) == 2 + 1 + 2 * 3
    of_pieces = [line for line in text.splitlines() if "finished: " in line]
    assert " left" in of_pieces[1] and " left" not in of_pieces[-1]  # what needs a failed piece is not waited for
    monkeypatch.delenv("FAKE_FAIL")
    status, text = run(place)
    assert status == FINISHED and "resumed: pre-training spe" in text
    assert len(made(place)) == 11
    log = (place / "OUT/pretraining/spe/log.txt").read_text()
    assert log.count("$ ") == 2 and "asked to fail" in log


def test_a_piece_stopped_by_its_own_file_is_no_failure_and_is_not_started_again(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_STALL", "bert/news-100/seed-0")
    monkeypatch.setenv("FAKE_STATUS", "75")
    result_folder = place / "OUT/rows/bert/news-100/seed-0/run"
    once_there(result_folder / "calls.txt", (result_folder / "STOP").touch)
    status, text = run(place, only=("bert",))
    assert status == STOPPED and "stopped as asked: rows/bert/news-100/seed-0" in text and "FAILED" not in text
    assert made(place).count("rows/bert/news-100/seed-0") == 1
    assert read_record(result_folder.parent).state == "stopped"
    monkeypatch.delenv("FAKE_STALL")
    (result_folder / "STOP").unlink()
    status, text = run(place, only=("bert",))
    assert status == FINISHED and "resumed: BERT, News, seed 0" in text


def test_a_piece_that_ends_well_but_unfinished_counts_as_failed(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_STALL", "bert/news-100/seed-0")
    result_folder = place / "OUT/rows/bert/news-100/seed-0/run"
    once_there(result_folder / "calls.txt", (result_folder / "STOP").touch)
    status, text = run(place, only=("rows/bert/news-100/seed-0",))
    assert status == FAILED and "it ended before its work was done" in text


def test_an_interrupt_lets_pieces_save_and_what_is_half_done_goes_on_first(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_STALL", "bert/news-100/seed-1")
    calls_file = place / "OUT/rows/bert/news-100/seed-1/run/calls.txt"
    once_there(calls_file, lambda: os.kill(os.getpid(), signal.SIGINT))
    status, text = run(place, only=("rows/bert/news-100/seed-1",))
    assert status == STOPPED
    assert "stopping: what runs saves first" in text and "stopped: BERT, News, seed 1" in text
    assert made(place) == ["rows/bert/news-100/seed-1"]
    assert read_record(place / "OUT/rows/bert/news-100/seed-1").state == "stopped"
    monkeypatch.delenv("FAKE_STALL")
    status, text = run(place, only=("bert",))
    assert status == FINISHED and "resumed: BERT, News, seed 1" in text
    assert made(place)[:2] == ["rows/bert/news-100/seed-1", "rows/bert/news-100/seed-0"]
    assert read_record(place / "OUT/rows/bert/news-100/seed-1").seconds > 0


def test_changed_settings_are_refused_and_renewed_on_demand(place: Path) -> None:
    rows = ("rows/*/news-50/*",)
    run(place, only=rows)
    made(place)
    replace(place, "settings: {steps: 2}", "settings: {steps: 3}")
    with pytest.raises(ConfigError) as caught:
        run(place, only=rows)
    message = str(caught.value)
    assert "pretraining/spe: steps was 2 and is 3" in message and "--renew" in message
    assert "exports/spe-query: pretraining/spe is another" in message
    assert "rows/bert" not in message and "shards" not in message
    assert run(place, only=("rows/bert/news-50/*",))[0] == FINISHED
    assert made(place) == []
    assert run(place, only=rows, renew=True)[0] == FINISHED
    assert made(place) == ["pretraining/spe", "exports/spe-query", *(f"rows/spe/news-50/seed-{s}" for s in (0, 1))]


def test_changed_input_content_is_noticed_and_a_moved_input_is_not(place: Path) -> None:
    run(place, only=("bert",))
    (place / "TRAIN").rename(place / "MOVED")
    replace(place, "train: TRAIN, dev: TRAIN, test: TRAIN", "train: MOVED, dev: MOVED, test: MOVED")
    assert run(place, only=("bert",))[0] == FINISHED
    (place / "MOVED").write_text("other\n")
    with pytest.raises(ConfigError, match="train has other content"):
        run(place, only=("bert",))


def test_settings_that_make_no_other_result_may_change(place: Path) -> None:
    run(place, only=("exports/*",))
    made(place)
    replace(place, "settings: {steps: 2}", "settings: {steps: 2, loader_workers: 0, log_every_steps: 5}")
    status, text = run(place, only=("exports/*",))
    assert status == FINISHED, text
    assert made(place) == []


def test_a_folder_without_record_is_not_built_upon(place: Path) -> None:
    (place / "OUT/shards/web/run").mkdir(parents=True)
    (place / "OUT/shards/web/run/something").touch()
    with pytest.raises(ConfigError, match="shards/web: there is no record"):
        run(place)


def test_two_runs_in_one_output_folder_are_refused(place: Path) -> None:
    import filelock

    (place / "OUT").mkdir()
    with filelock.FileLock(place / "OUT/.lock"), pytest.raises(ConfigError, match="another run works in"):
        run(place)


def test_renewing_waits_for_a_run_that_is_at_work(place: Path) -> None:
    import filelock

    run(place, only=("SPE",))
    replace(place, "settings: {steps: 2}", "settings: {steps: 4}")
    with filelock.FileLock(place / "OUT/.lock"), pytest.raises(ConfigError, match="another run works in"):
        run(place, only=("SPE",), renew=True)
    assert (place / "OUT/pretraining/spe/piece.json").exists()


def test_a_left_over_process_of_an_earlier_run_is_named(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = place / "OUT/rows/bert/news-100/seed-0"
    code = "import os, sys, time; sys.argv; time.sleep(600)"
    process = subprocess.Popen([sys.executable, "-c", code, str(folder / "run")])
    try:
        run(place, only=("BERT",))
        record = json.loads((folder / "piece.json").read_text())
        (folder / "piece.json").write_text(json.dumps(record | {"state": "started", "process": process.pid}))
        time.sleep(0.1)
        with pytest.raises(ConfigError, match=f"process {process.pid} still works on rows/bert"):
            run(place, only=("BERT",))
    finally:
        process.kill()
        process.wait()


def test_a_launcher_stands_before_the_program_and_runs_alone(place: Path) -> None:
    launcher = f"env FAKE_PORT={{port}} {sys.executable}"
    replace(place, "seeds: [0, 1]", f"seeds: [0, 1]\nlauncher: {{pretrain: '{launcher}'}}")
    status, _ = run(place, jobs=4, only=("Momentum encoder", "BERT"))
    assert status == FINISHED
    first = (place / "OUT/pretraining/spe/log.txt").read_text().splitlines()[0]
    assert first.startswith("$ env FAKE_PORT=") and "{port}" not in first


def test_a_launcher_that_does_not_exist_fails_its_pieces_alone(place: Path) -> None:
    replace(place, "seeds: [0, 1]", "seeds: [0, 1]\nlauncher: {pretrain: no_such_launcher}")
    status, text = run(place)
    assert status == FAILED
    assert "no_such_launcher cannot be started" in text
    assert "rows/bert/news-100/seed-1" in made(place)
    replace(place, "pretrain: no_such_launcher", "pretrain: env")
    replace(place, "launcher: {pretrain: env}", f"launcher: {{pretrain: {sys.executable}}}")
    assert run(place)[0] == FINISHED and "rows/bert/news-100/seed-1" not in made(place)


def test_each_job_sees_one_device(place: Path) -> None:
    from spe_dist.experiments.process import environment

    assert environment(1, 2, ("4", "5"))["CUDA_VISIBLE_DEVICES"] == "5"
    experiment = read_experiment(place / "file.yaml")
    plan = make_plan(experiment)
    requests = Requests(plan, output_folder(experiment))
    with pytest.raises(ConfigError, match="at most one job a device"):
        Runner(plan, requests, 3, ("0", "1"))
    with pytest.raises(ConfigError, match="--jobs 0: at least one"):
        Runner(plan, requests, 0)


def test_dry_run_lists_states_and_commands_and_runs_nothing(place: Path) -> None:
    run(place, only=("BERT",))
    made(place)
    experiment = read_experiment(place / "file.yaml")
    plan = make_plan(experiment)
    lines = describe_plan(plan, Requests(plan, output_folder(experiment)))
    assert "finished  rows/bert/news-100/seed-0   (BERT, News, seed 0)" in lines
    assert any(line.startswith("new       pretraining/spe") for line in lines)
    assert made(place) == []


def test_inputs_that_do_not_exist_are_named(place: Path) -> None:
    replace(place, "train: TRAIN, dev: TRAIN, test", "train: TRIAN, dev: TRAIN, test")
    with pytest.raises(DataError, match="train file TRIAN does not exist"):
        run(place)


# The command.


@pytest.fixture
def tool() -> ModuleType:
    return experiments


@pytest.mark.parametrize("has_own_value", [True, False])
def test_run_prints_the_tables_and_table_prints_them_again(
    place: Path, tool: ModuleType, capsys: pytest.CaptureFixture[str], has_own_value: bool
) -> None:
    if not has_own_value:
        replace(place, "bert: some-bert", "bert: null")
    assert tool.main(["run", "file.yaml", "--only", "BERT", "--set", "bert=other-bert"]) == FINISHED
    printed = capsys.readouterr().out
    assert "all 4 pieces are finished" in printed
    assert "| BERT | 60.5 ± 0.7 | 40.5 ± 0.7 | 30.5 ± 0.7 | 2 " in " ".join(printed.split())
    assert tool.main(["table", "file.yaml", "--only", "shares", "--split", "dev"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("###") == 1 and "60.5 ± 0.7" in printed  # 50 + 5 (share) + 5 (dev) + seed
    assert (place / "OUT/tables/tables.csv").exists() and (place / "OUT/tables/dev/tables.md").exists()


def test_seeds_of_the_command_line_stand_in_place_of_those_of_the_file(
    place: Path, tool: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tool.main(["run", "file.yaml", "--only", "rows/bert/news-100/*", "--seeds", "7"]) == FINISHED
    assert made(place) == ["rows/bert/news-100/seed-7"]
    assert tool.main(["run", "file.yaml", "--only", "rows/bert/news-100/*", "--seeds", "0,1,7"]) == FINISHED
    assert made(place) == ["rows/bert/news-100/seed-0", "rows/bert/news-100/seed-1"]
    capsys.readouterr()
    assert tool.main(["table", "file.yaml", "--only", "BERT", "--seeds", "0,1,7"]) == 0
    assert " 62.7 ± 3.8 |" in capsys.readouterr().out  # 60 + seed
    for seeds, told in (("7,7", "--seeds=[7, 7]: give at least one, none twice"), ("7,", "'' is not a whole number")):
        with contextlib.suppress(SystemExit):
            assert tool.main(["run", "file.yaml", "--seeds", seeds]) == 2
        assert told in capsys.readouterr().err


def test_the_exit_status_tells_failures_from_mistakes(
    place: Path, tool: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FAKE_FAIL", "seed-1")
    assert tool.main(["run", "file.yaml", "--only", "cnn", "--jobs", "2"]) == FAILED
    assert "1 of 2: 1 failed" in capsys.readouterr().out
    assert tool.main(["run", "file.yaml", "--set", "bert"]) == 2
    assert capsys.readouterr().err == "error: --set 'bert': give NAME=VALUE\n"
    assert tool.main(["run", "other.yaml"]) == 2
    assert "other.yaml does not exist" in capsys.readouterr().err


def test_models_of_other_seeds_than_those_to_keep_are_removed(place: Path) -> None:
    replace(place, "seeds: [0, 1]", "seeds: [0, 1]\nkeep_models: [1]")
    assert run(place, only=("rows/bert/news-100/*",))[0] == FINISHED
    assert [(place / f"OUT/rows/bert/news-100/seed-{seed}/run/model").exists() for seed in (0, 1)] == [False, True]
    assert run(place, only=("rows/bert/news-100/*",))[1].count("2 finished") == 1
