"""What the engine room changes in DeepSpeed's own ways."""

from types import SimpleNamespace

from spe_dist.distributed.engine import TrainingEngine, import_deepspeed


def test_overflow_at_the_smallest_loss_scale_is_one_more_skipped_step(monkeypatch):
    """DeepSpeed raises there, after fewer steps than `max_skipped_steps` waits for to say what to do."""
    import_deepspeed("cpu")
    from deepspeed.runtime.fp16 import loss_scaler

    monkeypatch.setattr(loss_scaler.dist, "get_rank", lambda: 1)
    scaler = loss_scaler.DynamicLossScaler(4.0, 1000, min_scale=1.0, delayed_shift=2, consecutive_hysteresis=False)
    engine = object.__new__(TrainingEngine)
    engine.precision = "float16"
    engine._engine = SimpleNamespace(optimizer=SimpleNamespace(loss_scaler=scaler))
    engine._keep_smallest_loss_scale()
    for _ in range(30):
        scaler.update_scale(overflow=True)
    assert scaler.cur_scale == 1.0
