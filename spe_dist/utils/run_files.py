"""Names of the files that a training run leaves, declared once.

OUTPUT/config.yaml           the settings
OUTPUT/metrics.jsonl         a row a step and an evaluation; tensorboard/ shows the same
OUTPUT/curves.png            the same as a picture
OUTPUT/failures.jsonl        a row a step at which training went wrong, with its sentences
OUTPUT/yardsticks.json       pre-training: what the held-out figures are compared with
OUTPUT/scores.json           fine-tuning: scores of the finished run
OUTPUT/unit_counts.json      fine-tuning: right, predicted and gold by document or sentence, for paired tests
OUTPUT/model/                fine-tuning: the best model
OUTPUT/STOP                  asks a run to stop; its user or a program makes it
OUTPUT/checkpoints/latest    name of the newest one
OUTPUT/checkpoints/step_00001000/
    state.json               step, position in the data, ranks, stage, precision, checksums
    config.yaml              the settings
    tensors/index.json       which part of which tensor lies where; Adam's step, loss scale
    tensors/rank_00000.safetensors  what the rank owned: float32 masters, Adam's moments, key average, queues
    start/                   pre-training: encoder config, tokenizer files, the pooler that the encoder came with
    best/                    fine-tuning: the best model so far
    extractor/               fine-tuning: labels, settings and tokenizer of the model, without its weights
"""

CONFIG_FILE = "config.yaml"
METRICS_FILE = "metrics.jsonl"
FAILURES_FILE = "failures.jsonl"
TENSORBOARD_FOLDER = "tensorboard"
CURVES_FILE = "curves.png"
YARDSTICKS_FILE = "yardsticks.json"
SCORES_FILE = "scores.json"
UNIT_COUNTS_FILE = "unit_counts.json"
MODEL_FOLDER = "model"
STOP_FILE = "STOP"

CHECKPOINTS_FOLDER = "checkpoints"
POINTER_FILE = "latest"
STATE_FILE = "state.json"
TENSORS_FOLDER = "tensors"
START_FOLDER = "start"
BEST_FOLDER = "best"
DESCRIPTION_FOLDER = "extractor"
