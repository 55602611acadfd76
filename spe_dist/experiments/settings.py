"""Which settings each kind of work knows, checked before anything runs.

A misspelt setting would otherwise end a run hours after it was written. What the experiment file says by other means
(inputs, outputs, starts, seeds of rows) is not among them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from spe_dist.config.finetuning import FinetuneConfig
from spe_dist.config.loading import leaves, load_config
from spe_dist.config.pretraining import Config
from spe_dist.data.build.settings import BuildSettings
from spe_dist.errors import ConfigError
from spe_dist.experiments.file import PLACEHOLDER
from spe_dist.utils.wording import nearest_or_all

Settings = Mapping[str, Any]

MANAGED = {  # said by the experiment file's own keys, so no settings
    "shards": {"input", "output", "quiet", "overwrite"},
    "pretrain": {"shards", "output", "resume", "encoder"},
    "finetune": {"train", "dev", "test", "output", "resume", "start", "start_encoder", "seed", "train_share"},
}
SHARDS_BESIDE = ("tokenizer", "processes", "max_bad_share")
BESIDE = ("deepspeed", "preset")  # options of the training commands that are no settings of a run
# How fast, how often saved and how loud a run is: another value makes no other result, so it may change on the way.
NEUTRAL = frozenset(
    "processes micro_batch_sentences cache_dir cache_gib fetch_timeout_s loader_workers prefetch_steps "
    "checkpoint_every_steps checkpoint_every_minutes keep_checkpoints checkpoint_every_epochs log_every_steps "
    "max_skipped_steps check_every_steps grace_time_s timeout_s".split()
)


def check_settings(kind: str, settings: Settings, place: str, start: str = "") -> dict[str, Any]:
    """`settings` of a kind of work with their values converted. Raises ConfigError that begins with `place`.

    A value that still holds an open {name} is left as it is.
    """
    for name in settings:
        if name in MANAGED[kind]:
            raise ConfigError(f"{place}: {name!r} is set by the experiment file itself; remove it from the settings")
    if kind == "shards":
        known = [*(f.name for f in dataclasses.fields(BuildSettings)), *SHARDS_BESIDE]
        for name in settings:
            if name not in known:
                raise ConfigError(f"{place}: unknown setting {name!r}{nearest_or_all(name, known)}")
        return dict(settings)
    open_values = {name: v for name, v in settings.items() if isinstance(v, str) and PLACEHOLDER.search(v)}
    held_back = {name: value for name, value in open_values.items() if name != "tokenizer"}
    beside = {name: settings[name] for name in BESIDE if settings.get(name) is not None}
    given = {name: value for name, value in settings.items() if name not in BESIDE and name not in held_back}
    try:
        return beside | held_back | _convert(kind, given, beside.get("preset"), start)
    except ConfigError as error:
        raise ConfigError(f"{place}: {error}") from None


def _convert(kind: str, given: Settings, preset: str | None, start: str) -> dict[str, Any]:
    config_class = Config if kind == "pretrain" else FinetuneConfig
    beside = {} if kind == "pretrain" else {"train": "given", "start": start}
    config = load_config(preset=preset, yaml_file=None, given={**given, **beside}, config_class=config_class)
    if kind == "finetune":
        config.require_inputs()
    known = leaves(config_class)
    return {name: getattr(getattr(config, known[name].section), name) for name in given}


def as_arguments(settings: Settings) -> list[str]:
    """`--name value` for every setting, as the tools' command lines read them."""
    arguments: list[str] = []
    for name, value in settings.items():
        arguments += [f"--{name}", _as_text(value)]
    return arguments


def _as_text(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
