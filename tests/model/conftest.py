"""Random packed batches and small encoders for the tests of model and objectives."""

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel

from spe_dist.config.pretraining import Config, DataConfig, MocoConfig, ModelConfig, ObjectiveConfig, TrainConfig
from spe_dist.data.batches.packed import PackedBatch

VOCAB_SIZE = 120
CLS, SEP = 2, 3


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def _sequence(rng, span_widths):
    """Piece ids of a sequence with the given words a span, and the first piece (inside the sequence) of each word."""
    first_pieces, piece_ids = [], [CLS]
    for _ in range(sum(span_widths)):
        first_pieces.append(len(piece_ids))
        piece_ids += rng.integers(5, VOCAB_SIZE, size=1 + int(rng.random() < 0.4) + int(rng.random() < 0.1)).tolist()
    return [*piece_ids, SEP], first_pieces


@pytest.fixture
def make_batch():
    """make_batch(sentences, seed, targets=True, extra=0) -> PackedBatch with empty and 1-word spans among its spans."""

    def make(sentences: int = 4, seed: int = 0, targets: bool = True, extra: int = 0) -> PackedBatch:
        rng = np.random.default_rng(seed)
        all_ids, positions, cu, first, borders = [], [], [0], [], [0]
        tbo, spo = [], []
        for q in range(2 * sentences + extra):
            widths = [rng.choice([0, 1, 3, 7]), rng.choice([1, 2, 5]), rng.choice([0, 2]), 1 + rng.integers(4), 0]
            if rng.random() < 0.5:
                widths[4] = int(rng.integers(1, 9))
            ids, first_pieces = _sequence(rng, widths)
            start = len(all_ids)
            all_ids += ids
            positions += range(len(ids))
            cu.append(len(all_ids))
            ends = [*first_pieces[1:], len(ids) - 1]
            multi = [(a, b) for a, b in zip(first_pieces, ends, strict=True) if b - a > 1]
            if targets and q < 2 * sentences:
                tbo += [
                    (start + a, offset, int(rng.integers(VOCAB_SIZE)))
                    for a, b in multi[:2]
                    for offset in range(1, b - a)
                ]
            if targets:
                spo += [(5 * q + f, int(rng.integers(6))) for f in range(5) if widths[f] >= 3][:2]
            first += [start + a for a in first_pieces]
            for width in widths:
                borders.append(borders[-1] + int(width))
        tbo_array = np.array(tbo, dtype=np.int64).reshape(-1, 3)
        spo_array = np.array(spo, dtype=np.int64).reshape(-1, 2)
        as_tensor = lambda values: torch.tensor(np.asarray(values, dtype=np.int64))  # noqa: E731
        return PackedBatch(
            sentence_ids_B=torch.arange(100 * seed, 100 * seed + sentences),
            text_ids_B=torch.arange(100 * seed, 100 * seed + sentences) + (1 << 62),
            piece_ids_T=as_tensor(all_ids),
            positions_T=as_tensor(positions),
            cu_seqlens_Q1=torch.tensor(cu, dtype=torch.int32),
            first_piece_W=as_tensor(first),
            span_borders_S1=as_tensor(borders),
            tbo_first_piece_M=as_tensor(tbo_array[:, 0]),
            tbo_offset_M=as_tensor(tbo_array[:, 1]),
            tbo_label_M=as_tensor(tbo_array[:, 2]),
            spo_span_P=as_tensor(spo_array[:, 0]),
            spo_label_P=as_tensor(spo_array[:, 1]),
            max_seqlen=int(np.diff(cu).max()),
            view_tokens=cu[2 * sentences],
            view_words=borders[5 * 2 * sentences],
        )

    return make


@pytest.fixture
def small_config():
    """small_config(tbo=..., normalize=..., ...) -> Config of a 2 x 32 model; leaf names choose their section."""

    def make(**settings) -> Config:
        model = {"hidden_size": 32, "layers": 2, "attention_heads": 4, "intermediate_size": 64, "dropout": 0.0}
        model |= {"cnn_channels": 10, "span_size": 30, "attention_size": 20, "position_size": 8}
        model |= {"tbo_offset_size": 12, "tbo_offset_rows": 5, "contrastive_size": 24}
        sections = {"model": ModelConfig, "objectives": ObjectiveConfig, "moco": MocoConfig, "train": TrainConfig}
        values = {name: dict(model) if name == "model" else {} for name in sections}
        for key, value in settings.items():
            section = next(name for name, cls in sections.items() if key in cls.__dataclass_fields__)
            values[section][key] = value
        return Config(data=DataConfig(), **{name: cls(**values[name]) for name, cls in sections.items()})

    return make


@pytest.fixture
def bert_folder(tmp_path):
    """bert_folder(model_class=BertModel, **config) -> folder of a saved random BERT, weights far from their start."""

    def make(model_class=BertModel, safe=True, **settings):
        values = {"vocab_size": VOCAB_SIZE, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
        values |= {"intermediate_size": 64, "max_position_embeddings": 130}
        config = BertConfig(**(values | settings))
        torch.manual_seed(0)
        model = model_class(config)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, 0.1, 0.2)
        folder = tmp_path / f"bert-{model_class.__name__}"
        model.save_pretrained(folder)
        return folder

    return make
