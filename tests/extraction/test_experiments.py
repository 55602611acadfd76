"""Experiment files, their pieces of work, and the runner; the commands are stood for by fake_piece.py."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from spe_dist.errors import ConfigError, DataError
from spe_dist.extraction.experiments import plan as planning
from spe_dist.extraction.experiments import runner
from spe_dist.extraction.experiments.file import read_experiment
from spe_dist.extraction.experiments.plan import make_plan, output_folder
from spe_dist.extraction.experiments.record import Requests, read_record
from spe_dist.extraction.experiments.runner import FAILED, FINISHED, STOPPED, Runner, describe_plan, refuse_changed

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ROOT / "tools" / "experiments"

FILE = """
output: OUT
seeds: [0, 1]
values: {bert: some-bert, epochs: 3, text: TEXT}
settings:
  shards: {tokenizer: "{bert}"}
  pretrain: {encoder_placeholder: 1}
  finetune: {epochs: "{epochs}", learning_rate: 1e-4}
shares: {50: {epochs: 6}}
corpora:
  news: {name: News, train: TRAIN, dev: TRAIN, test: TRAIN}
  far: {train: TRAIN, dev: TRAIN}
shards: {web: {input: ["{text}"]}}
pretraining:
  spe: {encoder: "{bert}", shards: web, settings: {steps: 2}}
distant:
  ds: {encoder: "{bert}", corpus: far}
rows:
  bert: {name: BERT, encoder: "{bert}"}
  spe: {name: SPE, pretraining: spe}
  key: {name: Momentum encoder, pretraining: spe, export: key}
  cnn: {name: "- CNN", pretraining: spe, settings: {without_cnn: true}}
  ds: {name: SPE-DS, distant: ds}
tables:
  main: {corpus: news, rows: [bert, spe, ds]}
  parts: {corpus: news, rows: [spe, cnn, key]}
  shares: {corpus: news, rows: [bert, spe], shares: [50]}
""".replace("  pretrain: {encoder_placeholder: 1}\n", "")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with inputs in which all programs are the fake."""
    for name in ("TRAIN", "TEXT"):
        (tmp_path / name).write_text(f"{name}\n")
    fake = Path(__file__).with_name("fake_piece.py")
    monkeypatch.setattr(planning, "PROGRAMS", dict.fromkeys(planning.PROGRAMS, fake))
    monkeypatch.setattr(runner, "POLL_S", 0.01)
    monkeypatch.setenv("FAKE_ORDER", str(tmp_path / "order.txt"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file.yaml").write_text(FILE)
    return tmp_path


def run(folder: Path, only: tuple[str, ...] = (), renew: bool = False, jobs: int = 1, **values: str) -> tuple[int, str]:
    """Status and output of a run of file.yaml."""
    experiment = read_experiment(folder / "file.yaml", values)
    plan = make_plan(experiment, only)
    requests = Requests(plan, output_folder(experiment))
    refuse_changed(plan, requests, renew)
    stream = io.StringIO()
    status = Runner(plan, requests, jobs, stream=stream).run()
    return status, stream.getvalue()


def made(folder: Path) -> list[str]:
    """Ids of the pieces whose commands were started since the last call, in order."""
    order = folder / "order.txt"
    lines = order.read_text().splitlines() if order.exists() else []
    order.unlink(missing_ok=True)
    return [str(Path(line).relative_to(folder / "OUT").parent) for line in lines]


def calls(folder: Path, piece: str) -> list[str]:
    return (folder / "OUT" / piece / "run" / "calls.txt").read_text().splitlines()


def once_there(path: Path, action: Callable[[], None]) -> None:
    """Call `action` from a thread of its own as soon as the file exists."""

    def wait() -> None:
        deadline = time.monotonic() + 240
        while not path.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        action()

    threading.Thread(target=wait, daemon=True).start()


def replace(folder: Path, old: str, new: str) -> None:
    text = (folder / "file.yaml").read_text()
    assert old in text
    (folder / "file.yaml").write_text(text.replace(old, new))


# The runner.


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
    monkeypatch.delenv("FAKE_FAIL")
    status, text = run(place)
    assert status == FINISHED and "resumed: pre-training spe" in text
    assert len(made(place)) == 11
    log = (place / "OUT/pretraining/spe/log.txt").read_text()
    assert log.count("$ ") == 2 and "asked to fail" in log


def test_a_piece_that_ends_well_but_unfinished_counts_as_failed(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_STALL", "bert/news-100/seed-0")
    product = place / "OUT/rows/bert/news-100/seed-0/run"
    once_there(product / "calls.txt", (product / "STOP").touch)
    status, text = run(place, only=("rows/bert/news-100/seed-0",))
    assert status == FAILED and "it ended before its work was done" in text


def test_an_interrupt_lets_pieces_save_and_the_same_command_continues(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_STALL", "bert/news-100/seed-0")
    calls_file = place / "OUT/rows/bert/news-100/seed-0/run/calls.txt"
    once_there(calls_file, lambda: os.kill(os.getpid(), signal.SIGINT))
    status, text = run(place, only=("bert",))
    assert status == STOPPED
    assert "stopping: what runs saves first" in text and "stopped: BERT, News, seed 0" in text
    assert made(place) == ["rows/bert/news-100/seed-0"]
    assert read_record(place / "OUT/rows/bert/news-100/seed-0").state == "stopped"
    monkeypatch.delenv("FAKE_STALL")
    status, text = run(place, only=("bert",))
    assert status == FINISHED and "resumed: BERT, News, seed 0" in text
    assert read_record(place / "OUT/rows/bert/news-100/seed-0").seconds > 0


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


def test_each_job_sees_one_device(place: Path) -> None:
    from spe_dist.extraction.experiments.process import environment

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


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("experiments_tool", ROOT / "tools" / "experiments.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_run_prints_the_tables_and_table_prints_them_again(
    place: Path, tool: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    replace(place, "bert: some-bert", "bert: null")
    assert tool.main(["run", "file.yaml", "--only", "BERT", "--set", "bert=other-bert"]) == FINISHED
    printed = capsys.readouterr().out
    assert "all 4 pieces are finished" in printed
    assert "| BERT   | 60.5 ± 0.7 | 40.5 ± 0.7 | 30.5 ± 0.7 | 2 " in printed
    assert tool.main(["table", "file.yaml", "--only", "shares", "--split", "dev"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("###") == 1 and "60.5 ± 0.7" in printed  # 50 + 5 (share) + 5 (dev) + seed
    assert (place / "OUT/tables/tables.csv").exists() and (place / "OUT/tables/dev/tables.md").exists()


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


# The file.


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seeds: [0, 1]", "seed: [0, 1]", "unknown key 'seed'; did you mean 'seeds'"),
        ("seeds: [0, 1]", "seeds: [0, 0]", "give at least one, none twice"),
        ("seeds: [0, 1]", "seeds: [0, x]", "'x' is not a whole number"),
        ("output: OUT\n", "", "'output' is missing"),
        ("output: OUT\n", "output: OUT\noutput: OUT2\n", "the key 'output' stands twice"),
        ("pretraining: spe, export: key", "pretraining: spi", "rows: key: pretraining: there is no 'spi'"),
        ("distant: ds}", "distant: dss}", "did you mean 'ds'"),
        ("export: key", "export: keys", "'keys'; did you mean 'key'"),
        ('encoder: "{bert}", corpus: far', 'encoder: "{bart}", corpus: far', "no value 'bart'; did you mean 'bert'"),
        ("rows: [bert, spe, ds]", "rows: [bert, spe, db]", "tables: main: rows: there is no 'db'"),
        ("rows: [bert, spe, ds]", "rows: [bert, spe]", "'ds' stands in no table"),
        ("corpus: news, rows: [spe, cnn", "corpus: far, rows: [spe, cnn", "'far' has no test file"),
        ("shares: [50]", "shares: [0]", "no share in per cent"),
        ("shares: [50]", "shares: [half]", "'half' is not a number"),
        ("without_cnn: true", "without_cnm: true", "did you mean 'without_cnn'"),
        ("settings: {steps: 2}", "settings: {step: 2}", "settings of pretraining spe: unknown setting 'step'"),
        ("settings: {steps: 2}", "settings: {output: x}", "'output' is set by the experiment file itself"),
        ('tokenizer: "{bert}"}', 'tokeniser: "{bert}"}', "did you mean 'tokenizer'"),
        ("epochs: 6", "epochs: six", "expected a number"),
        ('encoder: "{bert}", shards: web', "pretraining: spe, shards: web", "go round in a circle: pretraining/spe <-"),
        ('encoder: "{bert}", shards: web', 'encoder: "{exports/spe-key}", shards: web', "go round in a circle"),
        ('encoder: "{bert}", corpus', 'encoder: "{export/spe-key}", corpus', "did you mean 'exports/spe-key'"),
        ("  bert: {name: BERT", "  'b/t': {name: BERT", "'b/t' names a folder"),
        ("rows: [bert, spe], shares", "rows: [bert, spe], published: {spe: [1, 2]}, shares", "three F1 figures"),
        ("rows:\n", "rows: [\n", "is not valid YAML"),
    ],
)
def test_a_fault_in_the_file_is_named_with_its_remedy(place: Path, old: str, new: str, message: str) -> None:
    replace(place, old, new)
    with pytest.raises(ConfigError) as caught:
        make_plan(read_experiment(place / "file.yaml"))
    assert message in str(caught.value)


def test_values_are_set_and_those_left_open_are_asked_for_where_they_are_needed(place: Path) -> None:
    replace(place, "text: TEXT", "text: null")
    assert len(make_plan(read_experiment(place / "file.yaml"), ["BERT"]).pieces) == 4
    with pytest.raises(ConfigError, match=r"needed and not given: text; give --set text="):
        make_plan(read_experiment(place / "file.yaml"))
    plan = make_plan(read_experiment(place / "file.yaml", {"text": "TEXT", "bert": "other"}))
    assert plan.pieces["shards/web"].arguments[:2] == ("--input", "TEXT")
    assert "other" in plan.pieces["rows/bert/news-100/seed-0"].arguments
    with pytest.raises(ConfigError, match="no such value; did you mean 'text'"):
        read_experiment(place / "file.yaml", {"texts": "x"})


def test_a_demo_corpus_named_in_a_path_is_made_first(place: Path) -> None:
    replace(place, "values:", "demo: {small: {sentences: 30}}\nvalues:")
    replace(place, "news: {name: News, train: TRAIN", 'news: {name: News, train: "{demo/small}/extraction/train.json"')
    plan = make_plan(read_experiment(place / "file.yaml"), ["BERT"])
    assert next(iter(plan.pieces)) == "demo/small"
    assert plan.pieces["rows/bert/news-100/seed-0"].needs == ("demo/small",)
    assert run(place, only=("BERT",))[0] == FINISHED


@pytest.mark.parametrize("name", ["demo", "paper", "small"])
def test_shipped_files_are_whole_and_have_the_rows_of_the_paper(name: str) -> None:
    experiment = read_experiment(SHIPPED / f"{name}.yaml")
    given = {value: "x" for value, default in experiment.values.items() if default is None}
    plan = make_plan(read_experiment(SHIPPED / f"{name}.yaml", given))
    labels = {row.name for row in experiment.rows.values()}
    assert {"BERT", "SPE"} <= labels
    if name != "small":
        assert {"SPE(NYT)", "SPE-DS", "- TBO", "- SPO", "- CSPO", "- CNN", "w/o MLP Head", "Momentum encoder"} <= labels
        assert {10.0, 20.0, 50.0, 100.0} == {cell.share for cell in plan.cells}
    if name == "paper":
        assert {"SpanBERT", "SciBERT"} <= labels


def test_the_papers_file_sets_every_value_that_the_method_states() -> None:
    experiment = read_experiment(SHIPPED / "paper.yaml")
    given = {value: "x" for value, default in experiment.values.items() if default is None}
    pieces = make_plan(read_experiment(SHIPPED / "paper.yaml", given)).pieces
    spe, nyt = pieces["pretraining/spe"].settings, pieces["pretraining/spe_nyt"].settings
    assert (spe["steps"], spe["warmup_steps"], spe["learning_rate"]) == (40_000, 18_000, 1e-4)
    assert (nyt["epochs"], nyt["warmup_fraction"], nyt["learning_rate"]) == (10, 0.1, 5e-5)
    distant = pieces["distant/nyt"].settings
    assert (distant["epochs"], distant["warmup_fraction"]) == (10, 0.2)
    row = pieces["rows/spe/ace05-10/seed-0"].settings
    assert (row["learning_rate"], row["head_learning_rate"], row["layer_decay"]) == (2.5e-5, 2.5e-5, 0.9)
    assert (row["epochs"], row["batch_sentences"], row["warmup_fraction"], row["train_share"]) == (200, 32, 0.2, 0.1)
    for key, objective in (("without_tbo", "tbo"), ("without_spo", "spo"), ("without_cspo", "cspo")):
        assert pieces[f"pretraining/{key}"].settings == {**spe, objective: False}
    assert pieces["pretraining/without_mlp"].settings == {**spe, "contrastive_head": False}
