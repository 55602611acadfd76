"""The loop's decisions, with a training step that only pretends: when it saves, evaluates, warns and gives up."""

import json
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest
import torch

from spe_dist.config.loading import differences, resolve
from spe_dist.distributed.checkpoint import Checkpoints, list_checkpoints, read_state
from spe_dist.distributed.context import RankContext
from spe_dist.errors import CheckpointError, TrainingFailure, UnstableTraining
from spe_dist.pretraining import build
from spe_dist.pretraining.loop import Trainer, finish_row
from spe_dist.pretraining.resume import check_network, choose_start
from spe_dist.training.agreement import Agreement
from spe_dist.training.health.left_out import LeftOut
from spe_dist.training.journal import Journal, Position, Saving
from spe_dist.training.metrics import MetricLog, read_rows
from spe_dist.training.progress import ProgressLine
from spe_dist.training.rates.schedule import Schedule
from spe_dist.training.resume import ResumePoint
from spe_dist.training.terms import StepOutcome


@dataclass
class PretendedStep:
    """Applies every step with loss 1 unless told otherwise; `during` is called in each."""

    skipped: set = field(default_factory=set)
    dropped: set = field(default_factory=set)  # as where a stop is agreed within a step
    nan_at: int = -1
    during: object = None
    moco: object = None
    weights: dict = field(default_factory=lambda: {"tbo": 1.0, "spo": 1.0, "cspo": 1.0})

    def __post_init__(self):
        self.engine = SimpleNamespace(
            train=lambda: None,
            eval=lambda: None,
            grad_norm=lambda: 1.0,
            loss_scale=lambda: 65536.0,
            zero_stage=2,
            precision="float16",
        )
        self.rates = []

    def __call__(self, step, learning_rate, micro_batches, of_groups=None):
        self.rates.append(learning_rate)
        if self.during:
            self.during(step)
        if step in self.dropped:
            return None
        loss = float("nan") if step == self.nan_at else 2.0
        names = ["tbo/loss", "tbo/correct"]
        if self.moco:
            names += [f"cspo/{part}" for part in ("loss", "correct", "ranked", "positive", "negative", "spread")]
        sums = {name: torch.tensor([loss], dtype=torch.float64) for name in names}
        return StepOutcome(step not in self.skipped, {"tbo": 2, "spo": 0, "cspo": 4}, sums)


def recover(failure):
    raise failure


class Evaluations:
    """Counts at which steps it is called; in that of step `asks_at` the run is asked to stop."""

    def __init__(self, asks_at=None, stop=None):
        self.steps, self.asks_at, self.stop = [], asks_at, stop

    def __call__(self, step, agreed):
        self.steps.append(step)
        if step == self.asks_at:
            self.stop.requested = True
        return None if agreed() else {}


@pytest.fixture
def run(tmp_path):
    def run(step, stop=None, evaluate=None, position=None, steps=10, **given):
        config = resolve([{"log_every_steps": 2, "evaluate_every_steps": 0, "checkpoint_every_steps": 0, **given}])
        context = RankContext(rank=0, ranks=1, local_rank=0, device=torch.device("cpu"), control=None)
        stop = stop or SimpleNamespace(requested=False, reason="")
        agreement = Agreement(context, stop, config.train.checkpoint_every_minutes)
        position = position or Position()

        def pretended(number, *rest):
            outcome = step(number, *rest)
            agreement()
            return outcome

        pretended_step = SimpleNamespace(engine=step.engine, moco=step.moco, weights=step.weights)
        caller = type("Caller", (), {"__call__": staticmethod(pretended), **vars(pretended_step)})()
        journal = Journal(
            settings=config.train,
            engine=step.engine,
            position=position,
            log=MetricLog(tmp_path, context, finish_row, position.step),
            progress=ProgressLine(steps),
            saving=Saving(
                Checkpoints(tmp_path / "checkpoints", 10, context),
                lambda copy: lambda folder, group: (folder / "weights").write_text("w"),
                {"ranks": 1},
            ),
            agreement=agreement,
            state_pieces=lambda: [],
            left_out=LeftOut(),
        )
        trainer = Trainer(
            config=config,
            step=caller,
            schedule=Schedule(config.optimizer.learning_rate, 0, steps),
            batches_from=lambda first: (
                SimpleNamespace(step=i, epoch=0, micro_batches=[], replaced=0) for i in range(first, steps)
            ),
            accumulation=1,
            journal=journal,
            data_state=lambda steps: {"sentences_consumed": steps},
            evaluate=lambda: evaluate(journal.position.step, agreement) if evaluate else {},
            recover=recover,
        )
        return trainer.run(), trainer

    return run


def saved_steps(tmp_path):
    return sorted(int(path.name.removeprefix("step_")) for path in list_checkpoints(tmp_path / "checkpoints"))


def evaluated_steps(tmp_path):
    return [row["step"] for row in read_rows(tmp_path / "metrics.jsonl", "evaluation")]


def test_it_saves_after_the_first_step_then_as_set_and_at_the_end(run, tmp_path):
    finished, _ = run(PretendedStep(), checkpoint_every_steps=4)
    assert finished and saved_steps(tmp_path) == [1, 4, 8, 10]


def test_a_held_out_figure_that_is_not_finite_is_a_warning_and_at_the_end_an_error(run, tmp_path, capsys):
    def evaluate(step, agreed):
        return {"heldout/tbo_nats": float("nan"), "heldout/tbo_count_model_nats": 3.0}

    with pytest.raises(UnstableTraining, match=r"after step 10 heldout/tbo_nats is nan, in float16\. Step 1 is saved"):
        run(PretendedStep(), evaluate=evaluate, evaluate_every_steps=4)
    assert "warning: after step 4 heldout/tbo_nats is nan" in capsys.readouterr().out
    assert evaluated_steps(tmp_path) == [4, 8] and saved_steps(tmp_path) == [1]


def test_a_finished_run_is_left_as_it_is(run, tmp_path):
    row = {"kind": "evaluation", "step": 10}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    evaluate = Evaluations()
    finished, _ = run(PretendedStep(), evaluate=evaluate, position=Position(step=10, applied_steps=10))
    assert finished and evaluate.steps == [] and saved_steps(tmp_path) == []
    assert read_rows(tmp_path / "metrics.jsonl") == [row]


def test_a_resumed_run_saves_no_trial_checkpoint(run, tmp_path):
    run(PretendedStep(), position=Position(step=4, applied_steps=4), checkpoint_every_steps=4)
    assert saved_steps(tmp_path) == [8, 10]


def test_checkpoints_by_time_follow_rank_0s_clock(run, tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])

    def a_minute_passes(step):
        now[0] += 60.0

    run(PretendedStep(during=a_minute_passes), checkpoint_every_minutes=3.0)
    assert saved_steps(tmp_path) == [1, 4, 7, 10]


def test_evaluation_comes_every_n_steps_and_once_at_the_end(run, tmp_path):
    evaluate = Evaluations()
    run(PretendedStep(), evaluate=evaluate, evaluate_every_steps=5)
    assert evaluate.steps == [5, 10]
    (tmp_path / "metrics.jsonl").unlink()
    run(PretendedStep(), evaluate=evaluate)
    assert evaluate.steps == [5, 10, 10]


def test_a_request_to_stop_ends_the_run_saved(run, tmp_path):
    stop = SimpleNamespace(requested=False, reason="")

    def ask(step):
        stop.requested = step == 3

    finished, trainer = run(PretendedStep(during=ask), stop=stop)
    assert not finished and trainer.journal.position.step == 4
    assert saved_steps(tmp_path) == [1, 4]
    assert [row["step"] for row in read_rows(tmp_path / "metrics.jsonl")] == [1, 2, 3, 4]


def test_a_stop_within_the_first_step_leaves_a_checkpoint_of_its_beginning(run, tmp_path):
    finished, _ = run(PretendedStep(dropped={0}), stop=SimpleNamespace(requested=True, reason=""))
    assert not finished and saved_steps(tmp_path) == [0]


def test_a_checkpoint_holds_position_data_and_what_the_run_was_started_with(run, tmp_path):
    run(PretendedStep(skipped={9}))
    state = read_state(tmp_path / "checkpoints" / "step_00000010")
    del state["checksums"], state["trained_s"]
    assert state == {
        "step": 10,
        "applied_steps": 9,
        "skipped_steps": 1,
        "skipped_in_a_row": 1,
        "data": {"sentences_consumed": 10},
        "ranks": 1,
    }


def test_a_stop_that_meets_an_evaluation_leaves_it_to_the_run_that_resumes(run, tmp_path):
    stop, evaluate = SimpleNamespace(requested=False, reason=""), Evaluations()
    step = PretendedStep(during=lambda step: setattr(stop, "requested", step == 3))
    finished, _ = run(step, stop=stop, evaluate=evaluate, evaluate_every_steps=4)
    assert not finished and evaluate.steps == [] and saved_steps(tmp_path) == [1, 4]
    resumed = Position(step=4, applied_steps=4)
    finished, _ = run(PretendedStep(), evaluate=evaluate, evaluate_every_steps=4, position=resumed)
    assert finished and evaluate.steps == [4, 8, 10]


@pytest.mark.parametrize("at", [4, 10])
def test_a_stop_within_an_evaluation_gives_it_up_saves_and_leaves(run, tmp_path, at):
    stop = SimpleNamespace(requested=False, reason="")
    evaluate = Evaluations(asks_at=at, stop=stop)
    finished, _ = run(PretendedStep(), stop=stop, evaluate=evaluate, evaluate_every_steps=4)
    assert not finished and saved_steps(tmp_path) == [1, at]
    assert evaluated_steps(tmp_path) == [step for step in (4, 8) if step < at]
    evaluate = Evaluations()
    finished, _ = run(PretendedStep(), evaluate=evaluate, evaluate_every_steps=4, position=Position(step=at))
    assert finished and evaluate.steps == ([4, 8, 10] if at == 4 else [10])
    assert evaluated_steps(tmp_path) == [4, 8, 10]


def test_skipped_steps_do_not_move_the_schedule_and_too_many_end_the_run(run, tmp_path):
    step = PretendedStep(skipped={2, 3})
    run(step, steps=6, learning_rate=6.0)
    assert step.rates == pytest.approx([6.0, 5.0, 4.0, 4.0, 4.0, 3.0])
    with pytest.raises(TrainingFailure, match=r"3 steps in a row.*65536.*learning_rate"):
        run(PretendedStep(skipped={5, 6, 7}), max_skipped_steps=3)
    assert read_rows(tmp_path / "metrics.jsonl")[-1]["skipped_steps"] == 3
    step = PretendedStep(skipped={5, 6, 7})
    step.engine.precision = "float32"
    with pytest.raises(
        TrainingFailure, match=r"no finite numbers\. .*Lower learning_rate.*continue with --resume auto"
    ):
        run(step, max_skipped_steps=3)


@pytest.mark.parametrize(("precision", "skipped", "ends"), [("float16", {9}, True), ("float16", {8, 9}, False)])
def test_a_run_does_not_end_as_finished_while_its_steps_are_skipped(run, tmp_path, precision, skipped, ends):
    step = PretendedStep(skipped=skipped)
    if ends:
        assert run(step)[0] and saved_steps(tmp_path) == [1, 10]
        step.engine.precision = "float32"
    with pytest.raises(UnstableTraining, match="skipped, up to step 10") as caught:
        run(step)
    assert caught.value.kind == "skipped" and caught.value.step == min(skipped) + 1
    assert saved_steps(tmp_path) == [1]


def test_nothing_is_saved_while_steps_are_skipped(run, tmp_path):
    stop = SimpleNamespace(requested=False, reason="")
    step = PretendedStep(skipped={3, 4, 5}, during=lambda step: setattr(stop, "requested", step == 7))
    step.engine.precision = "float32"
    assert not run(step, stop=stop, checkpoint_every_steps=2)[0]
    assert saved_steps(tmp_path) == [1, 2, 8]
    step.during = lambda step: setattr(stop, "requested", step == 4)
    finished, trainer = run(step, stop=stop, checkpoint_every_steps=2)
    assert not finished and trainer.journal.describe_saved().startswith("the last 2 steps were skipped and are not")
    assert trainer.journal.describe_saved().endswith("step_00000002")


def pretended_moco(fill=0):
    """Momentum contrast whose queues hold up to ten keys; it counts comparisons of the ranks."""
    compared = []
    moco = SimpleNamespace(pair_queue=SimpleNamespace(fill=torch.tensor(fill), queue_keys=10), compared=compared)
    moco.check_equal = lambda: compared.append(True)
    return moco


def test_skipped_steps_fill_no_queue(run, tmp_path):
    run(PretendedStep(skipped={1}, moco=pretended_moco()), steps=5, log_every_steps=1)
    assert [row["queue_fill"] for row in read_rows(tmp_path / "metrics.jsonl", "train")] == [4, 4, 8, 10, 10]
    (tmp_path / "metrics.jsonl").unlink()
    run(PretendedStep(moco=pretended_moco(fill=3)), steps=2, position=Position(step=1, applied_steps=1))
    assert [row["queue_fill"] for row in read_rows(tmp_path / "metrics.jsonl", "train")] == [7]


def test_ranks_are_compared_at_the_start_and_every_n_steps(run):
    moco = pretended_moco()
    run(PretendedStep(moco=moco), check_every_steps=4)
    assert len(moco.compared) == 1 + 2


def test_a_loss_that_is_no_number_ends_the_run_before_it_is_saved(run, tmp_path):
    with pytest.raises(TrainingFailure, match=r"loss of step 6 is nan.*Step 4 is saved.*learning_rate"):
        run(PretendedStep(nan_at=5), checkpoint_every_steps=2)
    assert saved_steps(tmp_path) == [1, 2, 4]


def test_a_skipped_step_may_have_a_loss_that_is_no_number(run):
    finished, _ = run(PretendedStep(nan_at=5, skipped={5}))
    assert finished


def test_a_grace_time_too_short_to_save_in_is_told_after_the_first_step(run, capsys):
    run(PretendedStep(), grace_time_s=0.0)
    assert capsys.readouterr().out.count("warning: a micro-batch") == 1
    run(PretendedStep(), grace_time_s=100.0)
    assert "warning" not in capsys.readouterr().out


def test_a_checkpoint_of_a_fine_tuning_is_refused(tmp_path):
    context = RankContext(rank=0, ranks=1, local_rank=0, device=torch.device("cpu"), control=None)
    checkpoints = Checkpoints(tmp_path / "run" / "checkpoints", 1, context)
    written = checkpoints.save(3, {"step": 3, "best": {}}, lambda folder: (folder / "weights").write_text("w"))
    config = resolve([{"output": str(tmp_path / "run"), "resume": str(written)}])
    with pytest.raises(CheckpointError, match="step_00000003 is not a pre-training checkpoint"):
        choose_start(config, context, checkpoints, None)


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({"hidden_size": 64}, "hidden_size=768"),
        ({"cspo": False}, "cspo=True"),
        ({"cls_source": "pooler"}, "cls_source=state"),
        ({"normalize": False}, "normalize=True"),
    ],
)
def test_a_checkpoint_of_another_network_is_refused_by_the_setting_that_differs(tmp_path, given, word):
    with pytest.raises(CheckpointError, match=word):
        check_network(differences(resolve([]), resolve([given])), resolve([given]), tmp_path)


def test_what_a_resumed_run_sets_otherwise_is_reported(tmp_path):
    point = ResumePoint(tmp_path / "step_7", {}, ["resuming"])

    def notes(saved, mine):
        changed = check_network(differences(resolve([saved]), resolve([mine])), resolve([mine]), tmp_path)
        return point.with_changes(changed).notes[1:]

    assert notes({}, {"output": "moved", "resume": "auto"}) == []
    (line,) = notes({}, {"dropout": 0.0, "learning_rate": 1.0, "view_masks": "each"})
    assert line.startswith("settings changed since step_7: ")
    for change in ("dropout=0.0 (was 0.1)", "learning_rate=1.0 (was 0.0001)", "view_masks=each (was one)"):
        assert change in line
    (line,) = notes({"encoder": "here"}, {"encoder": "elsewhere", "layers": 3})  # an encoder brings its own sizes
    assert line.endswith(": encoder=elsewhere (was here)")


def test_a_disk_without_room_is_an_error_and_one_with_little_a_warning(tmp_path, monkeypatch):
    config = resolve([{"output": str(tmp_path), "queue_keys": 10, "keep_checkpoints": 3}])
    free = SimpleNamespace(free=0)
    monkeypatch.setattr("shutil.disk_usage", lambda folder: free)
    with pytest.raises(CheckpointError, match="--output"):
        build.check_disk(config, 10**9)
    free.free = 60 * 2**30
    assert "lower keep_checkpoints" in build.check_disk(config, 10**9)
    free.free = 2**50
    assert build.check_disk(config, 10**9) is None
