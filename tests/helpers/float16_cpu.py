"""DeepSpeed's float16 engine on a CPU, where it runs but is refused."""

from __future__ import annotations

import torch


def allow_float16() -> None:
    """Have DeepSpeed's accelerator say that this CPU supports float16, in this process: call it inside a rank."""
    from spe_dist.distributed.engine import import_deepspeed

    import_deepspeed("cpu")
    from deepspeed.accelerator import get_accelerator

    accelerator = get_accelerator()
    dtypes = [*accelerator.supported_dtypes(), torch.float16]
    accelerator.is_fp16_supported = lambda: True
    accelerator.supported_dtypes = lambda: dtypes
