"""Whole runs of the entry point: stop and resume, what is written, and the errors that users make."""

import shutil
from contextlib import contextmanager, nullcontext

import pytest
import torch
from safetensors.torch import load_file
from small_runs import PRETRAINING, ask_to_stop, command_line, comparable_rows, zero_stage

from spe_dist import pretrain
from spe_dist.benchmark.data.server import FileServer
from spe_dist.cli.exits import STOPPED
from spe_dist.cli.pretrain import demo_output
from spe_dist.config.loading import resolve
from spe_dist.distributed.checkpoint import find_checkpoint, list_checkpoints
from spe_dist.distributed.fragments.index import read_index
from spe_dist.training.metrics import read_rows

SETTINGS = {
    **PRETRAINING,
    "steps": 10,
    "checkpoint_every_steps": 4,
    "evaluate_sentences": 48,
    "log_every_steps": 3,
}


def arguments(shards, output, **given):
    return command_line({**SETTINGS, "shards": shards, "output": output, **given})


@contextmanager
def served(folder):
    server = FileServer(folder, latency_s=0.01)
    server.start()
    yield server
    server.stop()


def train(argv, stop_after=None):
    """Run the entry point in this rank; `stop_after`: the last rank is asked to stop at the end of that micro-batch."""
    if stop_after is not None:
        ask_to_stop(stop_after)
    return pretrain.main(argv)


@pytest.mark.distributed
@pytest.mark.parametrize(
    ("stage", "stop_after", "given"),
    [
        (2, 11, {"loader_workers": 2, "distant": True}),  # 2 ranks x accumulation 2: in the middle of step 6
        (3, 13, {"normalize": False, "view_masks": "each", "queue_dtype": "bfloat16"}),
        pytest.param(1, 10, {"average": "replicated"}, marks=pytest.mark.long),
    ],
)
def test_a_stopped_run_goes_on_as_if_it_had_not_stopped(run_ranks, demo_shards, tmp_path, stage, stop_after, given):
    """And where `distant`, it reads behind a URL what the whole run reads in a folder."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    distant, given = given.get("distant"), {name: value for name, value in given.items() if name != "distant"}
    zero = zero_stage(tmp_path, stage)
    assert run_ranks(train, 2, [*arguments(demo_shards, whole, **given), zero]) == [0, 0]
    with served(demo_shards) if distant else nullcontext() as server:
        where = {"shards": server.url, "cache_dir": tmp_path / "cache"} if server else {"shards": demo_shards}
        argv = [*arguments(output=parts, **where, **given), zero]
        assert run_ranks(train, 2, argv, stop_after) == [STOPPED, 0]
        stopped_at = len(read_rows(parts / "metrics.jsonl", "train"))
        assert stopped_at == stop_after // 2
        assert run_ranks(train, 2, [*argv, "--resume=auto"]) == [0, 0]
        assert not server or "blocks.npy" in server.requests

    expected, found = comparable_rows(whole), comparable_rows(parts)
    assert [row["step"] for row in expected if row["kind"] == "train"] == list(range(1, 11))
    assert found == expected
    last_whole, last_parts = find_checkpoint(whole), find_checkpoint(parts)
    for file in sorted((last_whole / "tensors").glob("*.safetensors")):
        tensors = load_file(last_parts / "tensors" / file.name)
        for name, tensor in load_file(file).items():
            assert torch.equal(tensor, tensors[name]), name
    assert read_index(last_whole / "tensors") == read_index(last_parts / "tensors")
    assert (whole / "curves.png").is_file() and (whole / "tensorboard").is_dir()


@pytest.mark.distributed
def test_resume_takes_the_newest_checkpoint_that_is_whole(run_ranks, demo_shards, tmp_path):
    argv = arguments(demo_shards, tmp_path / "run", steps=8, evaluate_sentences=0)
    assert run_ranks(train, 1, argv) == [0]
    rows = comparable_rows(tmp_path / "run")
    assert not read_rows(tmp_path / "run" / "metrics.jsonl", "evaluation")[-1].keys() - {"kind", "step"}
    newest = list_checkpoints(tmp_path / "run" / "checkpoints")[0]
    (newest / "tensors" / "rank_00000.safetensors").write_bytes(b"damaged")
    assert run_ranks(train, 1, [*argv, "--resume=auto"]) == [0]
    assert comparable_rows(tmp_path / "run") == rows
    assert find_checkpoint(tmp_path / "run").name == "step_00000008"


def fails(capsys, argv, *words):
    assert pretrain.main(argv) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ") and "Traceback" not in message
    assert all(word in message for word in words), message


def test_a_demo_run_gets_a_folder_of_its_own_and_is_found_again_by_resume(tmp_path):
    def output(resume):
        return demo_output(resolve([{"output": str(tmp_path / "demo"), "resume": resume}])).name

    assert output("never") == output("auto") == "demo"
    for name, following in (("demo", "demo-2"), ("demo-2", "demo-3")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").touch()
        assert output("never") == following and output("auto") == name


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (["--learning_rat=1"], ["--learning_rat", "did you mean", "learning_rate"]),
        (["--steps=ten"], ["steps='ten'", "whole number"]),
        (["--preset=papr"], ["papr", "paper"]),
        (["--preset=paper"], ["spe shards make"]),
        (["--deepspeed=nowhere.json"], ["nowhere.json", "zero2_offload"]),
        (["--config=nowhere.yaml"], ["nowhere.yaml"]),
        (["--config=/"], ["--config", "directory"]),
    ],
)
def test_mistakes_on_the_command_line_are_told_at_once(capsys, extra, words):
    fails(capsys, extra, *words)


@pytest.mark.distributed
@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"shards": "nowhere"}, ["nowhere"]),
        ({"global_batch_sentences": 100_000, "micro_batch_sentences": 0}, ["100000", "fewer"]),
        ({"micro_batch_sentences": 5}, ["global_batch_sentences=16", "micro-batches of 5"]),
        ({"max_pieces": 16}, ["max_pieces=16"]),
        ({"encoder": "OTHER"}, ["vocabulary", "--tokenizer"]),
        ({"resume": "no/such/checkpoint"}, ["no/such/checkpoint"]),
        ({"kernels": "apex"}, ["apex"]),
        ({"precision": "float16"}, ["float16", "CPU"]),
        ({"streams": 5}, ["streams=5"]),
    ],
)
def test_what_cannot_train_says_so_before_training(run_ranks, demo_shards, other_encoder, tmp_path, given, words):
    given = {name: str(other_encoder) if value == "OTHER" else value for name, value in given.items()}
    argv = arguments(**{"shards": demo_shards, "output": tmp_path / "run", **given})

    def attempt():
        import contextlib
        import io

        stream = io.StringIO()
        with contextlib.redirect_stderr(stream):
            status = pretrain.main(argv)
        return status, stream.getvalue()

    status, message = run_ranks(attempt, 1)[0]
    assert status == 2 and message.startswith("error: ")
    assert all(word in message for word in words), message
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.fixture(scope="module")
def other_encoder(tmp_path_factory):
    """A small BERT checkpoint with a vocabulary that no shards were made with."""
    from transformers import BertConfig, BertModel, BertTokenizer

    folder = tmp_path_factory.mktemp("other_encoder")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "##c"]
    BertTokenizer(vocab={word: i for i, word in enumerate(words)}).save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(words), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=48
    )
    BertModel(config).save_pretrained(folder)
    return folder


@pytest.mark.distributed
def test_output_of_another_run_and_missing_shards_are_refused(run_ranks, demo_shards, tmp_path, capfd):
    shards = tmp_path / "shards"
    shutil.copytree(demo_shards, shards)
    argv = arguments(shards, tmp_path / "run", steps=2)
    assert run_ranks(train, 1, argv) == [0]
    assert run_ranks(train, 1, argv) == [2]
    assert "--resume auto" in capfd.readouterr().err
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.yaml").touch()
    elsewhere = [*argv, f"--output={tmp_path / 'other'}", f"--resume={find_checkpoint(tmp_path / 'run')}"]
    assert run_ranks(train, 1, elsewhere) == [2]
    assert "other holds another run" in capfd.readouterr().err
    next(shards.glob("train-*.tar")).unlink()
    assert run_ranks(train, 1, [*argv, "--resume=auto"]) == [2]
    assert "is missing" in capfd.readouterr().err
