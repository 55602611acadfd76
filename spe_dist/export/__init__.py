"""Trained models as plain PyTorch: exported folders, read and written without DeepSpeed.

spe = load(folder)                        # SpanPairEncoder, encodes words: see spe_dist.export.encode
model = load_pretraining_model(folder)    # with the heads of TBO and SPO, to train on
"""

from spe_dist.export.loading import (
    load_pretraining_model,
    load_span_pair_encoder,
    save_pretraining_model,
    save_span_pair_encoder,
)

load = load_span_pair_encoder

__all__ = [
    "load",
    "load_pretraining_model",
    "load_span_pair_encoder",
    "save_pretraining_model",
    "save_span_pair_encoder",
]
