"""Settings of known runs, by the names that `--preset` takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spe_dist.config.finetuning import FinetuneConfig
from spe_dist.config.pretraining import Config

PRETRAINING: Mapping[str, Mapping[str, Any]] = {
    # A model small enough for two CPU cores, on the embedded corpus: minutes, not hours. With so few steps dropout and
    # a low rate only cost time, and queues must be young beside the key encoder's memory of 1 / (1 - m) steps, or keys
    # are told apart by their age.
    "demo": {
        "hidden_size": 128,
        "layers": 2,
        "attention_heads": 2,
        "intermediate_size": 512,
        "contrastive_size": 128,
        "dropout": 0.0,
        "cspo_weight": 1.0,
        "momentum": 0.998,
        "temperature": 0.05,
        "queue_keys": 1_024,
        "learning_rate": 2e-3,
        "global_batch_sentences": 64,
        "steps": 800,
        "output": "runs/demo",
        "checkpoint_every_steps": 200,
        "evaluate_every_steps": 200,
        "evaluate_sentences": 512,
        "log_every_steps": 5,
        "check_every_steps": 100,
    },
    # Section 3.3 and the authors' released settings.
    "paper": {
        "encoder": "bert-base-cased",
        "view_masks": "each",
        "normalize": False,
        "learning_rate": 1e-4,
        "warmup_steps": 18_000,
        "steps": 40_000,
        "output": "runs/paper",
    },
    # Section 3.3, unsupervised pre-training on NYT: ten epochs, a tenth of them warm-up.
    "nyt": {
        "encoder": "bert-base-cased",
        "view_masks": "each",
        "normalize": False,
        "learning_rate": 5e-5,
        "warmup_fraction": 0.1,
        "epochs": 10.0,
        "output": "runs/nyt",
    },
}

FINETUNING: Mapping[str, Mapping[str, Any]] = {
    # The authors' released settings, which are also the defaults.
    "paper": {
        "learning_rate": 2.5e-5,
        "head_learning_rate": 2.5e-5,
        "layer_decay": 0.9,
        "warmup_fraction": 0.2,
        "batch_sentences": 32,
        "epochs": 200.0,
    },
    # Encoders well below BERT-base learn with higher rates in fewer epochs; small shares get more epochs. Half the
    # paper's batch is twice the steps at the same cost, which relations need where there is little data.
    "small": {
        "batch_sentences": 16,
        "learning_rate": 1e-4,
        "head_learning_rate": 2e-4,
        "adam_bias_correction": False,  # larger steps: such short runs end before the heads have learned otherwise
        "epochs": 25.0,
        "epoch_scaling": 0.3,
        "patience": 10,
    },
}

PRESETS: Mapping[type, Mapping[str, Mapping[str, Any]]] = {Config: PRETRAINING, FinetuneConfig: FINETUNING}
