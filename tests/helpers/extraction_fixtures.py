"""A small fine-tuned folder with random weights, of which it finds much in any text."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

WORD_PIECES = ["##" + letter for letter in "abcdefghijklmnopqrstuvwxyz0123456789"]


@pytest.fixture(scope="session")
def extractor_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as fine-tuning writes it: 2 layers x 32, 40 positions, types A, B and C, relations r and s."""
    from transformers import BertConfig

    from spe_dist.data.text.vocabulary import tokenizer_from_pieces
    from spe_dist.extraction.corpora.corpus import Labels
    from spe_dist.extraction.joint.folder import network_settings, save_extractor
    from spe_dist.extraction.joint.model import JointModel
    from spe_dist.model.encoder import PackedBertEncoder
    from spe_dist.model.start.build import build_spe_model

    pieces = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *".,;:!?()'\"-",
        *[p[2:] for p in WORD_PIECES],
        *WORD_PIECES,
    ]
    settings = {"dropout": 0.0, "cnn_channels": 10, "span_size": 30, "attention_size": 20, "position_size": 8}
    settings |= {"hidden_size": 32, "layers": 2, "attention_heads": 4, "intermediate_size": 64}
    settings |= {"max_pieces": 40, "context_pieces": 0, "context_encoder": "own", "relation_size": 16, "symmetric": []}
    config = BertConfig(
        vocab_size=len(pieces),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=40,
    )
    labels = Labels(("A", "B", "C"), ("r", "s"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        spe = build_spe_model(network_settings(settings), PackedBertEncoder(config))
        model = JointModel(spe, labels, relation_size=16, dropout=0.0)
        for parameter in model.parameters():
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, 0.0, 0.3)
    folder = tmp_path_factory.mktemp("extractor") / "model"
    save_extractor(folder, model, tokenizer_from_pieces(pieces, do_lower_case=True), labels, settings, {"epochs": 0})
    return folder


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with inputs in which all programs are the fake."""
    from small_experiment import FILE

    from spe_dist.experiments import pieces, runner

    for name in ("TRAIN", "TEXT"):
        (tmp_path / name).write_text(f"{name}\n")
    monkeypatch.setattr(pieces, "COMMANDS", dict.fromkeys(pieces.COMMANDS, ("fake_piece",)))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    monkeypatch.setattr(runner, "POLL_S", 0.01)
    monkeypatch.setenv("FAKE_ORDER", str(tmp_path / "order.txt"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file.yaml").write_text(FILE)
    return tmp_path


@pytest.fixture(scope="session")
def joint():
    """The module joint.py: a small joint model, random sentences, and the plain form of the model."""
    import joint

    return joint
