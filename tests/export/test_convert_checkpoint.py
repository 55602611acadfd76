"""The command that turns checkpoints into plain PyTorch."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest
import torch
from project import ROOT
from transformers import AutoModel, AutoTokenizer

from spe_dist.cli import export
from spe_dist.export import SpanPairEncoder, load_pretraining_model

TOOL = ROOT / "tools" / "convert_checkpoint.py"


@pytest.fixture(scope="module")
def tool():
    return export


@pytest.fixture
def run(tool, capsys):
    """Runs the command in this process: (exit status, what it printed, its errors)."""

    def run_tool(*arguments):
        status = tool.main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return run_tool


@pytest.fixture
def made(checkpoints, tmp_path):
    return checkpoints.make_checkpoint(tmp_path / "run")


def test_command_works_as_typed_without_launcher_and_without_deepspeed(made, tmp_path):
    blocked = tmp_path / "blocked" / "deepspeed"
    blocked.mkdir(parents=True)
    (blocked / "__init__.py").write_text("raise ImportError('must not be imported')")
    environment = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    environment["PYTHONPATH"] = str(blocked.parent)
    command = [sys.executable, str(TOOL), str(made.run), str(tmp_path / "out"), "--torch", str(tmp_path / "all.pt")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    assert AutoModel.from_pretrained(tmp_path / "out").config.hidden_size == 32
    assert len({file.stat().st_mode for file in (tmp_path / "out").iterdir()}) == 1, "all files are readable alike"
    assert AutoTokenizer.from_pretrained(tmp_path / "out").mask_token_id == 4
    state = torch.load(tmp_path / "all.pt", weights_only=True)
    masters = made.model.state_dict()
    assert state.keys() == masters.keys() and all(torch.equal(state[name], masters[name]) for name in masters)


def test_step_folder_checkpoints_folder_and_run_folder_mean_the_same(made, run, tmp_path):
    for number, source in enumerate((made.folder, made.run / "checkpoints", made.run)):
        status, out, err = run(source, tmp_path / f"out{number}")
        assert (status, err) == (0, "") and "step_00000007" in out
    files = [{p.name: p.read_bytes() for p in (tmp_path / f"out{number}").iterdir()} for number in range(3)]
    assert files[0] == files[1] == files[2]
    expected = {"config.json", "model.safetensors", "tokenizer.json", "spe_heads.safetensors", "README.md"}
    assert expected <= files[0].keys()


def test_key_encoder_is_exported_and_refused_without_cspo(made, checkpoints, run, tmp_path):
    assert run(made.run, "--encoder", "key", tmp_path / "key")[0] == 0, "options may stand between the paths"
    name = "span_encoder.mlp.linear.weight"
    assert torch.equal(SpanPairEncoder.from_pretrained(tmp_path / "key").module.state_dict()[name], made.average[name])
    without = checkpoints.make_checkpoint(tmp_path / "plain", cspo=False)
    status, _, err = run(without.run, tmp_path / "none", "--encoder", "key")
    assert status == 2 and "cspo" in err and not (tmp_path / "none").exists()


def test_an_existing_folder_is_replaced_only_on_request_and_only_if_it_is_an_export(made, run, tmp_path):
    out = tmp_path / "out"
    assert run(made.run, out)[0] == 0
    before = (out / "model.safetensors").stat().st_ino
    status, _, err = run(made.run, out)
    assert status == 2 and "--overwrite" in err and (out / "model.safetensors").stat().st_ino == before
    assert run(made.run, out, "--overwrite")[0] == 0
    assert (out / "model.safetensors").stat().st_ino != before
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.tex").write_text("ten years")
    status, _, err = run(made.run, tmp_path / "precious", "--overwrite")
    assert status == 2 and "not an earlier export" in err and (tmp_path / "precious" / "thesis.tex").exists()
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")], "no temporary folder is left"


@pytest.mark.parametrize(
    "name",
    [
        "tensors/index.json",
        "tensors/rank_00001.safetensors",
        "config.yaml",
        "start/config.json",
        "start/tokenizer.json",
    ],
)
def test_damage_is_found_by_checksum_and_named(made, run, tmp_path, name):
    file = made.folder / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    status, _, err = run(made.run, tmp_path / "out")
    assert status == 2 and name in err and "checksum" in err and not (tmp_path / "out").exists()
    file.unlink()
    status, _, err = run(made.run, tmp_path / "out")
    assert status == 2 and name in err and "missing" in err


def test_folders_of_others_are_recognised(made, run, tmp_path):
    foreign = tmp_path / "foreign"
    (foreign / "global_step10").mkdir(parents=True)
    (foreign / "latest").write_text("global_step10")
    (foreign / "global_step10" / "mp_rank_00_model_states.pt").write_bytes(b"")
    status, _, err = run(foreign, tmp_path / "out")
    assert status == 2 and "zero_to_fp32" in err
    run(made.run, tmp_path / "export")
    for source, word in [
        (tmp_path / "export", "already plain"),
        (tmp_path / "absent", "does not exist"),
        (TOOL, "--from_pspe"),
        (tmp_path / "run" / "checkpoints" / "step_00000007" / "start", "transformers"),
    ]:
        status, _, err = run(source, tmp_path / "out")
        assert status == 2 and word in err, err


def test_wrong_command_lines_are_errors_with_a_remedy(made, run, tmp_path):
    for arguments, word in [
        ((), "CHECKPOINT and OUTPUT"),
        ((made.run,), "CHECKPOINT and OUTPUT"),
        ((made.run, tmp_path / "out", "more"), "3 paths"),
        ((made.run, tmp_path / "out", "--tokenizer", "x"), "--from_pspe"),
        ((made.run, tmp_path / "out", "--torch", tmp_path / "out"), "name a file beside it"),
    ]:
        status, _, err = run(*arguments)
        assert status == 2 and word in err, err
    assert not (tmp_path / "out").exists()


def test_one_state_dict_alone_needs_no_output(made, run, tmp_path):
    assert run(made.run, "--torch", tmp_path / "all.pt")[0] == 0
    assert run(made.run, "--torch", tmp_path / "all.pt")[0] == 2
    assert run(made.run, "--torch", tmp_path / "all.pt", "--overwrite")[0] == 0


def test_a_full_disk_is_told_before_anything_is_written(made, run, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    status, _, err = run(made.run, tmp_path / "out")
    assert status == 2 and "MB free" in err and not (tmp_path / "out").exists()


def test_a_failure_in_the_middle_leaves_nothing(made, run, tmp_path, monkeypatch):
    import spe_dist.export.folder

    def fail(parts):
        raise OSError("no card today")

    monkeypatch.setattr(spe_dist.export.folder, "model_card", fail)
    status, _, err = run(made.run, tmp_path / "out")
    assert status == 2 and "no card today" in err
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


def test_checkpoints_of_the_predecessor_are_imported_by_the_command(predecessor, checkpoints, run, tmp_path):
    sizes = predecessor.Sizes(vocabulary=len(checkpoints.PIECES), decoder_rows=len(checkpoints.PIECES))
    torch.save(predecessor.random_checkpoint(sizes), tmp_path / "pretrained_model")
    (tmp_path / "vocab.txt").write_text("\n".join(checkpoints.PIECES) + "\n")
    common = ("--from_pspe", tmp_path / "pretrained_model", "--attention_heads", 4)
    status, _, err = run(*common, tmp_path / "bare")
    assert status == 0 and "no tokenizer" in err
    assert SpanPairEncoder.from_pretrained(tmp_path / "bare").module.encoder.config.num_attention_heads == 4
    for encoder in ("query", "key"):
        arguments = (*common, "--tokenizer", tmp_path / "vocab.txt", "--encoder", encoder, tmp_path / encoder)
        assert run(*arguments)[0] == 0
        assert not AutoModel.from_pretrained(tmp_path / encoder, output_loading_info=True)[1]["missing_keys"]
        assert AutoTokenizer.from_pretrained(tmp_path / encoder).tokenize("Anna Berg") == ["Anna", "Berg"]
        assert load_pretraining_model(tmp_path / encoder).tbo_head is not None


def test_help_is_readable(tool):
    text = tool.build_parser().format_help()
    assert "--from_pspe FILE OUTPUT" in text and max(map(len, text.splitlines())) <= 124
