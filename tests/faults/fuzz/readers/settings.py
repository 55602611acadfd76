"""Readers of settings, DeepSpeed configs and experiment files."""

from __future__ import annotations

import json
from pathlib import Path

from tests.faults.fuzz.damage import json_damage, lines_damage
from tests.faults.fuzz.engine import Reader
from tests.faults.fuzz.readers.files import file_of

YAML = "model:\n  layers: 2\n  cnn_kernels: [2, 3]\ntrain:\n  steps: 10\n  output: runs/x\nlearning_rate: 1e-4\n"
DEEPSPEED = {"zero_optimization": {"stage": 2, "reduce_bucket_size": 1000}, "fp16": {"enabled": "auto"}}


def read_settings(path: Path) -> None:
    from spe_dist.config.finetuning import FinetuneConfig
    from spe_dist.config.loading import load_config
    from spe_dist.config.pretraining import Config

    load_config(preset=None, yaml_file=str(path), given={}, config_class=Config)
    if path.stat().st_size % 3 == 0:
        load_config(preset=None, yaml_file=str(path), given={}, config_class=FinetuneConfig)


def read_deepspeed(path: Path) -> None:
    from spe_dist.config.pretraining import Config
    from spe_dist.distributed.deepspeed_config import (
        BatchPlan,
        choose_precision,
        complete,
        fit_to_model,
        load_deepspeed_config,
    )

    content = load_deepspeed_config(str(path))
    precision = choose_precision(Config(), content, "cpu")
    fit_to_model(complete(content, Config(), BatchPlan(256, 2, 4, 32), precision), 1000)


def read_experiment_file(path: Path) -> None:
    from spe_dist.experiments.file import read_experiment
    from spe_dist.experiments.plan import make_plan

    make_plan(read_experiment(path), lenient=True)


def setting_readers() -> list[Reader]:
    import spe_dist.experiments

    demo = (Path(spe_dist.experiments.__file__).parent / "files" / "demo.yaml").read_text(encoding="utf-8")
    return [
        Reader("settings", lines_damage, file_of("config.yaml", YAML), read_settings),
        Reader("experiment", lines_damage, file_of("experiment.yaml", demo), read_experiment_file),
        Reader("DeepSpeed config", json_damage, file_of("ds.json", json.dumps(DEEPSPEED)), read_deepspeed),
    ]
