"""Whole runs of the entry point: learning, stop and resume, ranks, what is written, and the errors that users make."""

import contextlib
import io
import json

import pytest
import torch
from safetensors.torch import load_file
from small_runs import FINETUNING, MEASURED, ask_to_stop, command_line, comparable_rows, small_corpus, zero_stage

from spe_dist import finetune
from spe_dist.cli.exits import STOPPED
from spe_dist.extraction.formats import read_corpus
from spe_dist.extraction.scoring.scores import score
from spe_dist.training.metrics import read_rows

SETTINGS = FINETUNING


@pytest.fixture(scope="module")
def corpus(demo_corpus, tmp_path_factory):
    """Folder with 40 training and 12 dev sentences of the demo corpus, and a tokenizer of their words."""
    folder = tmp_path_factory.mktemp("finetune")
    small_corpus(demo_corpus, folder)
    return folder


def arguments(corpus, output, **given):
    files = {"train": corpus / "train.json", "dev": corpus / "dev.json", "tokenizer": corpus / "tokenizer"}
    return command_line({**SETTINGS, **files, "output": output, **given})


def train(argv, stop_after=None):
    """(status, messages) of the entry point in this rank; the last one is asked to stop when it looks so often."""
    if stop_after is not None:
        ask_to_stop(stop_after)
    stream = io.StringIO()
    with contextlib.redirect_stderr(stream), contextlib.redirect_stdout(stream):
        status = finetune.main(argv)
    return status, stream.getvalue()


@pytest.fixture
def run(run_ranks):
    """`run(argv, ranks=1, stop_after=None)`: what all ranks printed, after they have ended as they should."""

    def start(argv, ranks=1, stop_after=None):
        results = run_ranks(train, ranks, argv, stop_after)
        assert [status for status, _ in results] == [0 if stop_after is None else STOPPED] + [0] * (ranks - 1), results
        return results[0][1]

    return start


def in_columns(sentence):
    """A sentence of the format `spert` as CoNLL columns."""
    tags = ["O"] * len(sentence["tokens"])
    for entity in sentence["entities"]:
        for index in range(entity["start"], entity["end"]):
            tags[index] = f"{'B' if index == entity['start'] else 'I'}-{entity['type']}"
    return "".join(f"{word} {tag}\n" for word, tag in zip(sentence["tokens"], tags, strict=True)) + "\n"


def model_files(output):
    return {
        name: load_file(output / "model" / f"{name}.safetensors") for name in ("model", "spe_heads", "extractor_heads")
    }


def assert_same_model(first, second):
    for name, tensors in model_files(first).items():
        for key, tensor in model_files(second)[name].items():
            assert torch.equal(tensor, tensors[key]), (name, key)


@pytest.mark.distributed
def test_a_small_corpus_is_learned_by_heart_and_the_run_leaves_what_it_promises(run, run_ranks, corpus, tmp_path):
    output = tmp_path / "run"
    memorised = tmp_path / "train.json"
    memorised.write_text(json.dumps(json.loads((corpus / "train.json").read_text())[:16]))
    given = {
        "train": memorised,
        "dev": memorised,
        "test": corpus / "dev.json",
        "epochs": 80,
        "dropout": 0,
        "patience": 20,
        "gold_entities": True,
    }
    text = run(arguments(corpus, output, **given))
    scores = json.loads((output / "scores.json").read_text())
    assert scores["dev"]["entity"]["f1"] > 0.98 and scores["dev"]["ent_rel"]["f1"] > 0.95
    assert scores["finished"] and scores["best_epoch"] <= scores["epochs"] <= 80
    assert "start: nothing is loaded; random: sentence encoder" in text and "Ent+Rel" in text
    with_gold = scores["test_gold_entities"]
    assert with_gold["entity"]["f1"] == 1 and with_gold["relation"] == with_gold["ent_rel"]
    assert with_gold["relation"]["gold"] == scores["test"]["relation"]["gold"]
    assert scores["dev_gold_entities"]["relation"]["f1"] >= scores["dev"]["relation"]["f1"] > 0.95
    assert "dev, relations between gold entities: " in text

    rows = read_rows(output / "metrics.jsonl", "train")
    assert len(rows) == scores["steps"] == 2 * scores["epochs"]
    assert rows[0]["learning_rate"] < max(row["learning_rate"] for row in rows)
    assert rows[-1]["detection_loss"] < 0.2 * rows[0]["detection_loss"]
    best = max(read_rows(output / "metrics.jsonl", "evaluation"), key=lambda row: row["dev/entity_f1_plus_ent_rel_f1"])
    assert best["epoch"] == scores["best_epoch"]
    assert best["dev/ent_rel_f1"] == pytest.approx(scores["dev"]["ent_rel"]["f1"])
    again = score(read_corpus(memorised), read_corpus(output / "predictions_dev.json"))
    assert again.ent_rel.f1 == scores["dev"]["ent_rel"]["f1"]
    counts = json.loads((output / "unit_counts.json").read_text())
    assert counts["dev"] == again.units.to_json() and len(counts["test"]["relation"]) == 12
    assert read_corpus(output / "predictions_test.json").n_sentences == 12
    assert {"config.yaml", "model", "curves.png", "tensorboard"} <= {path.name for path in output.iterdir()}
    assert not (output / "checkpoints").exists()
    (output / "checkpoints" / "step_00000001").mkdir(parents=True)  # as a kill just before the end leaves it
    same = run([*arguments(corpus, output, **given), "--resume=auto"])
    assert "is finished" in same and "no effect" not in same and not (output / "checkpoints").exists()
    other = run([*arguments(corpus, output, **given), "--resume=auto", "--weight_decay=0.5"])
    assert "is finished" in other and "no effect on a finished run: weight_decay=0.5 (was 0.01);" in other
    for other, words in (("--seed=5", "seed=0, this run has 5"), ("--train_share=0.5", "other training sentences")):
        (status, message), *_ = run_ranks(train, 1, [*arguments(corpus, output, **given), "--resume=auto", other])
        assert status == 2 and str(output) in message and words in message, message


@pytest.mark.distributed
@pytest.mark.parametrize(
    ("ranks", "stage", "stop_after", "steps"),  # a run looks once a step and once in the evaluation of an epoch
    [
        (1, None, 11, 10),  # the end of the second epoch: its evaluation is made after the resume
        (1, None, 12, 10),  # in the evaluation of the second epoch
        pytest.param(2, 2, 12, 10, marks=pytest.mark.slow),
        pytest.param(2, 3, 7, 6, marks=pytest.mark.long),
    ],
)
def test_a_stopped_run_goes_on_as_if_it_had_not_stopped(run, corpus, tmp_path, ranks, stage, stop_after, steps):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    zero = [zero_stage(tmp_path, stage)] if stage else []
    run([*arguments(corpus, whole), *zero], ranks)
    argv = [*arguments(corpus, parts), *zero]
    assert "--resume auto" in run(argv, ranks, stop_after)
    assert len(read_rows(parts / "metrics.jsonl", "train")) == steps
    assert len(read_rows(parts / "metrics.jsonl", "evaluation")) == 1
    assert not (parts / "scores.json").exists()
    run([*argv, "--resume=auto"], ranks)
    expected = comparable_rows(whole)
    assert [row["step"] for row in expected if row["kind"] == "train"] == list(range(1, 21))
    assert comparable_rows(parts) == expected
    assert_same_model(whole, parts)
    first, second = (json.loads((folder / "scores.json").read_text()) for folder in (whole, parts))
    assert first["dev"] == second["dev"] and first["best_epoch"] == second["best_epoch"]


@pytest.mark.distributed
@pytest.mark.parametrize("windows", [{}, {"max_pieces": 12}])
def test_two_ranks_compute_what_one_rank_does_dropout_too(run, corpus, tmp_path, windows):
    given = {
        **windows,
        "dropout": 0.1,
        "epochs": 2,
        "gold_epochs": 9,
        "learning_rate": 1e-3,
        "head_learning_rate": 1e-3,
    }
    for ranks in (1, 2):
        run(arguments(corpus, tmp_path / str(ranks), **given), ranks)
    one, two = (read_rows(tmp_path / name / "metrics.jsonl") for name in ("1", "2"))
    for expected, found in zip(one, two, strict=True):
        for name, value in expected.items():
            if name not in MEASURED and name != "kind":
                assert found[name] == pytest.approx(value, rel=2e-4, abs=1e-6), (name, expected["step"])
    scores = [json.loads((tmp_path / name / "scores.json").read_text()) for name in ("1", "2")]
    assert scores[0]["dev"] == scores[1]["dev"]


@pytest.mark.distributed
@pytest.mark.long
@pytest.mark.parametrize("stage", [1, 3])
def test_bfloat16_learns_and_keeps_float32_masters(run, corpus, tmp_path, stage):
    output = tmp_path / "run"
    run([*arguments(corpus, output, precision="bfloat16", epochs=3), zero_stage(tmp_path, stage)], 2)
    rows = read_rows(output / "metrics.jsonl", "train")
    assert rows[-1]["loss"] < rows[0]["loss"]
    masters = model_files(output)["model"]["embeddings.word_embeddings.weight"]
    assert masters.dtype == torch.float32 and not torch.equal(masters, masters.bfloat16().float())


@pytest.mark.distributed
def test_mixed_precision_trains_float32_weights_and_scores_dev_with_the_same_products(run, corpus, tmp_path):
    output = tmp_path / "run"
    run([*arguments(corpus, output, precision="mixed", epochs=3), zero_stage(tmp_path, 2)], 2)
    rows = read_rows(output / "metrics.jsonl", "train")
    assert rows[-1]["loss"] < rows[0]["loss"]
    weights = model_files(output)["model"]["embeddings.word_embeddings.weight"]
    assert weights.dtype == torch.float32 and not torch.equal(weights, weights.bfloat16().float())
    scores = json.loads((output / "scores.json").read_text())
    best = next(
        row for row in read_rows(output / "metrics.jsonl", "evaluation") if row["epoch"] == scores["best_epoch"]
    )
    assert best["dev/entity_f1"] == pytest.approx(scores["dev"]["entity"]["f1"])


@pytest.mark.distributed
def test_columns_without_relations_train_a_model_of_entities_and_runs_without_dev_work(run, corpus, tmp_path):
    columns = tmp_path / "train.conll"
    columns.write_text("".join(map(in_columns, json.loads((corpus / "train.json").read_text())[:16])))
    output = tmp_path / "run"
    text = run(arguments(corpus, output, train=columns, dev=None, test=columns, epochs=2))
    assert "(conll), 16 test; " in text and "no relations\n" in text
    assert "warning: the training sentences have no relations, so the model learns to find entities alone" in text
    scores = json.loads((output / "scores.json").read_text())
    assert scores["dev"] is None and scores["best_epoch"] == 2 and scores["test"]["relation"]["predicted"] == 0
    assert read_corpus(output / "predictions_test.json").n_sentences == 16
    assert "Relation F1" not in (output / "model" / "README.md").read_text()
    further = arguments(corpus, tmp_path / "further", start=output / "model", tokenizer=None, epochs=1, train_share=0.5)
    further = [word for word in further if not word.startswith(("--span", "--cnn", "--attention_size", "--position"))]
    text = run(further)
    assert "sentence encoder, span encoder and span pair encoder from" in text and "20 of 40 training sentences" in text
    assert "will never be found" in text or "dev F1" in text


@pytest.mark.distributed
@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"train": "nowhere.json"}, ["train=nowhere.json", "does not exist"]),
        ({"train": "/dev/null"}, ["train=/dev/null", "is a pipe or device"]),
        ({"dev": "EMPTY"}, ["EMPTY", "empty list"]),
        ({"dev": "NO_ENTITIES"}, ["no entities", "--dev"]),
        ({"train": "NO_ENTITIES"}, ["nothing to learn"]),
        ({"train_share": 0.001}, ["train_share=0.001", "none with words"]),
        ({"symmetric": "Nonsense"}, ["'Nonsense' is not a relation type"]),
        ({"max_pieces": 600}, ["max_pieces=600", "512 positions"]),
        ({"resume": "no/such/checkpoint"}, ["no/such/checkpoint"]),
        ({"precision": "float16"}, ["float16", "CPU"]),
        ({"start": "no/such/start", "tokenizer": None}, ["no/such/start"]),
    ],
)
def test_what_cannot_train_says_so_before_training(run_ranks, corpus, tmp_path, given, words):
    (tmp_path / "EMPTY").write_text("[]")
    (tmp_path / "NO_ENTITIES").write_text(json.dumps([{"tokens": ["a", "b"], "entities": [], "relations": []}]))
    given = {name: tmp_path / value if str(value).isupper() else value for name, value in given.items()}
    (status, message), *_ = run_ranks(train, 1, arguments(corpus, tmp_path / "run", **given))
    assert status == 2 and message.startswith("error: "), message
    assert all(word in message for word in words), message
    assert not (tmp_path / "run" / "config.yaml").exists()


@pytest.mark.distributed
def test_a_foreign_folder_where_the_model_goes_is_refused_before_training(run_ranks, corpus, tmp_path):
    (tmp_path / "run" / "model").mkdir(parents=True)
    (tmp_path / "run" / "model" / "mine").touch()
    for status, message in run_ranks(train, 2, arguments(corpus, tmp_path / "run")):
        assert status == 2 and "not an earlier export" in message and "step" not in message, message
    assert [path.name for path in (tmp_path / "run" / "model").iterdir()] == ["mine"]


@pytest.mark.distributed
def test_another_run_and_another_setting_are_refused(run_ranks, run, corpus, tmp_path):
    argv = arguments(corpus, tmp_path / "run", epochs=2)
    run(argv, stop_after=3)
    cases = [
        (1, [], "holds another run"),
        (1, ["--resume=auto", "--seed=5"], "seed=0, this run has 5"),
        (1, ["--resume=auto", "--epochs=3"], "epochs, epoch_scaling and train_share as they were"),
        (1, ["--resume=auto", "--train_share=0.5"], "other training sentences"),
        (1, ["--resume=auto", f"--dev={corpus / 'train.json'}"], "other dev sentences"),
        (1, ["--resume=auto", "--pair_activation=gelu"], "pair_activation=tanh, this run has gelu"),
        (3, ["--resume=auto"], "batch_sentences=8 is not divisible by 3 ranks"),
        (1, [f"--start={tmp_path / 'run'}", f"--output={tmp_path / 'other'}"], "not finished"),
    ]
    for ranks, further, words in cases:
        for status, message in run_ranks(train, ranks, [*argv, *further]):
            assert status == 2 and words in message, message


@pytest.mark.slow
@pytest.mark.distributed
@pytest.mark.parametrize("stage", [2, pytest.param(3, marks=pytest.mark.long)])
def test_activation_checkpointing_changes_nothing(run, corpus, tmp_path, stage):
    for recompute in ("false", "true"):
        given = {"epochs": 2, "activation_checkpointing": recompute, "output": tmp_path / recompute}
        run([*arguments(corpus, **given), zero_stage(tmp_path, stage)], ranks=2)
    assert comparable_rows(tmp_path / "true") == comparable_rows(tmp_path / "false")
    plain, recomputed = model_files(tmp_path / "false"), model_files(tmp_path / "true")
    assert all(torch.equal(recomputed[part][name], plain[part][name]) for part in plain for name in plain[part])
