"""Trained models as plain PyTorch: exported folders, read and written without DeepSpeed.

spe = SpanPairEncoder.from_pretrained(folder)    # encodes words
model = load_pretraining_model(folder)           # with the heads of TBO and SPO, to train on
"""

from spe_dist.export.loading import load_pretraining_model, save_pretraining_model
from spe_dist.export.span_pair_encoder import SpanPairEncoder

__all__ = ["SpanPairEncoder", "load_pretraining_model", "save_pretraining_model"]
