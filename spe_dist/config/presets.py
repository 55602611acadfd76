"""Settings of known runs, by the names that `--preset` takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spe_dist.config.finetuning import FinetuneConfig
from spe_dist.config.pretraining import Config

PRETRAINING: Mapping[str, Mapping[str, Any]] = {
    # A network small enough for two CPU cores to learn all three objectives on the embedded corpus in about a minute:
    # heads shrink with the encoder. With so few steps dropout only costs time; queues must be young beside the key
    # encoder's memory of 1 / (1 - m) steps, or keys are told apart by their age.
    "demo": {
        "hidden_size": 64,
        "layers": 2,
        "attention_heads": 2,
        "intermediate_size": 128,
        "cnn_channels": 24,
        "span_size": 64,
        "attention_size": 32,
        "position_size": 16,
        "tbo_offset_size": 16,
        "contrastive_size": 64,
        "dropout": 0.0,
        "tbo_weight": 2.0,
        "cspo_weight": 2.0,
        "tbo_fraction": 0.25,
        "momentum": 0.998,
        "temperature": 0.1,
        "queue_keys": 512,
        "learning_rate": 4e-3,
        "global_batch_sentences": 64,
        "steps": 1_200,
        "precision": "float32",  # at this size as fast as 16 bits, and the same figures on every CPU
        "output": "runs/demo-pretraining",
        "checkpoint_every_steps": 0,
        "evaluate_every_steps": 600,
        "evaluate_sentences": 320,
        "log_every_steps": 10,
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
    # Going on from a good encoder on text of a domain, in few passes: random heads learn without spoiling it, and a
    # contrast in thousands of steps (experiments/files/adapt.yaml). `spe adapt` adds freeze_encoder_steps and chooses
    # the objectives.
    "adapt": {
        "global_batch_sentences": 64,
        "epochs": 3.0,
        "learning_rate": 4e-4,
        "head_learning_rate": 1e-3,
        "layer_decay": 0.9,
        "tbo_decoder": "tied",
        "mlm": True,
        "queue_keys": 16_384,
        "temperature": 0.05,
        "momentum": 0.99,
        "cspo_weight": 1.0,
        "checkpoint_every_steps": 0,
        "checkpoint_every_minutes": 5.0,
        "keep_checkpoints": 1,
        "evaluate_sentences": 1_024,
        "output": "runs/adapt",
    },
}

FINETUNING: Mapping[str, Mapping[str, Any]] = {
    # The encoder of pre-training's preset of this name, on the labels of the same made-up world.
    "demo": {
        "train_share": 0.25,
        "cnn_channels": 24,
        "span_size": 64,
        "attention_size": 32,
        "position_size": 16,
        "relation_size": 32,
        "dropout": 0.0,
        "learning_rate": 3e-3,
        "head_learning_rate": 6e-3,
        "warmup_fraction": 0.1,
        "epochs": 8.0,
        "gold_epochs": 4,
        "evaluate_every_epochs": 2,
        "checkpoint_every_minutes": 0.0,
        "precision": "float32",
        "output": "runs/demo-extraction",
    },
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
