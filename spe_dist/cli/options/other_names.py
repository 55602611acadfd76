"""What options are called in other programs: whoever types such a name gets ours in the answer."""

from __future__ import annotations

from collections.abc import Collection

# Names from other programs and ours for them; the first one that a command has counts. In capitals: an argument without
# a name.
OTHER_NAMES: dict[str, tuple[str, ...]] = {
    "lr": ("learning_rate",),
    "encoder_lr": ("learning_rate",),
    "head_lr": ("head_learning_rate",),
    "task_learning_rate": ("head_learning_rate",),
    "lr_decay": ("layer_decay",),
    "layerwise_lr_decay": ("layer_decay",),
    "wd": ("weight_decay",),
    "beta1": ("adam_beta1",),
    "beta2": ("adam_beta2",),
    "adam_epsilon": ("adam_eps",),
    "eps": ("adam_eps",),
    "clip": ("max_grad_norm",),
    "grad_clip": ("max_grad_norm",),
    "gradient_clipping": ("max_grad_norm",),
    "max_norm": ("max_grad_norm",),
    "warmup": ("warmup_fraction",),
    "warmup_ratio": ("warmup_fraction",),
    "warmup_proportion": ("warmup_fraction",),
    "num_warmup_steps": ("warmup_steps",),
    "batch_size": ("global_batch_sentences", "batch_sentences", "batch_pieces", "global_batch"),
    "train_batch_size": ("global_batch_sentences", "batch_sentences"),
    "global_batch_size": ("global_batch_sentences", "batch_sentences"),
    "eval_batch_size": ("batch_pieces",),
    "micro_batch_size": ("micro_batch_sentences", "micro_batch"),
    "per_device_train_batch_size": ("micro_batch_sentences", "batch_sentences"),
    "epoch": ("epochs",),
    "max_epochs": ("epochs",),
    "n_epochs": ("epochs",),
    "num_epochs": ("epochs",),
    "num_train_epochs": ("epochs",),
    "max_steps": ("steps",),
    "num_steps": ("steps",),
    "num_train_steps": ("steps",),
    "num_training_steps": ("steps",),
    "train_steps": ("steps",),
    "out": ("output", "OUTPUT"),
    "out_dir": ("output", "OUTPUT"),
    "output_dir": ("output", "OUTPUT"),
    "output_file": ("output", "OUTPUT"),
    "output_path": ("output", "OUTPUT"),
    "save_dir": ("output", "OUTPUT"),
    "overwrite_output_dir": ("overwrite",),
    "force": ("overwrite", "renew"),
    "model": ("start", "encoder", "MODEL"),
    "model_dir": ("MODEL", "start", "encoder"),
    "model_name": ("start", "encoder", "MODEL"),
    "model_name_or_path": ("start", "encoder", "MODEL"),
    "model_path": ("start", "encoder", "MODEL"),
    "pretrained_model": ("start", "encoder", "MODEL"),
    "bert": ("start", "encoder"),
    "checkpoint": ("CHECKPOINT OUTPUT", "start", "encoder", "MODEL"),
    "vocab": ("tokenizer",),
    "vocab_file": ("tokenizer",),
    "vocab_size": ("train_vocab",),
    "tokenizer_name": ("tokenizer",),
    "lower_case": ("do_lower_case",),
    "lowercase": ("do_lower_case",),
    "max_len": ("max_pieces",),
    "max_length": ("max_pieces",),
    "max_seq_len": ("max_pieces",),
    "max_seq_length": ("max_pieces",),
    "seq_length": ("max_pieces",),
    "train_data": ("train", "shards"),
    "train_file": ("train", "shards"),
    "train_path": ("train", "shards"),
    "data": ("shards", "train", "input", "INPUT"),
    "data_dir": ("shards", "train", "input", "INPUT"),
    "dataset": ("shards", "train", "input", "INPUT"),
    "input": ("INPUT", "shards", "train"),
    "input_file": ("input", "INPUT"),
    "inputs": ("input", "INPUT"),
    "dev_file": ("dev",),
    "eval_file": ("dev",),
    "valid": ("dev",),
    "valid_file": ("dev",),
    "validation_file": ("dev",),
    "test_file": ("test",),
    "predict_file": ("test", "INPUT"),
    "pred": ("predictions",),
    "reference": ("gold",),
    "fp16": ("precision float16",),
    "bf16": ("precision bfloat16", "bfloat16"),
    "fp32": ("precision float32",),
    "dtype": ("precision",),
    "amp": ("precision",),
    "gpu": ("device",),
    "cuda": ("device",),
    "no_cuda": ("device cpu", "cpu"),
    "use_cpu": ("device cpu", "cpu"),
    "num_threads": ("threads",),
    "num_workers": ("loader_workers", "processes"),
    "dataloader_num_workers": ("loader_workers",),
    "workers": ("loader_workers", "processes"),
    "n_jobs": ("jobs", "processes"),
    "num_layers": ("layers",),
    "num_hidden_layers": ("layers",),
    "num_heads": ("attention_heads",),
    "num_attention_heads": ("attention_heads",),
    "hidden_dim": ("hidden_size",),
    "hidden_dropout_prob": ("dropout",),
    "queue_size": ("queue_keys",),
    "moco_m": ("momentum",),
    "moco_t": ("temperature",),
    "tau": ("temperature",),
    "early_stopping_patience": ("patience",),
    "eval_steps": ("evaluate_every_steps", "evaluate_every_epochs"),
    "logging_steps": ("log_every_steps",),
    "log_interval": ("log_every_steps",),
    "save_steps": ("checkpoint_every_steps", "checkpoint_every_epochs"),
    "save_interval": ("checkpoint_every_steps", "checkpoint_every_epochs"),
    "save_total_limit": ("keep_checkpoints",),
    "resume_from_checkpoint": ("resume",),
    "deepspeed_config": ("deepspeed",),
    "ds_config": ("deepspeed",),
    "config_file": ("config",),
    "random_seed": ("seed", "seeds"),
    "threshold": ("min_probability",),
    "min_score": ("min_probability",),
    "plan": ("dry_run",),
}


def our_name(option: str, options: Collection[str], positionals: Collection[str]) -> str | None:
    """What a command calls the option `--name`; None where it has nothing of that kind.

    Args:
        option: as it was typed, dashes included.
        options: the command's own, dashes included.
        positionals: names of its arguments without a name, as its help shows them.
    """
    name = option.removeprefix("--").replace("-", "_").lower()
    if f"--{name}" in options:
        return f"--{name}"
    for ours in OTHER_NAMES.get(name, ()):
        if f"--{ours.split()[0]}" in options:
            return f"--{ours}"
        if ours in positionals:
            return ours
    return None
