"""Arms a rank that a launcher has started: Python imports this first where the folder is on PYTHONPATH.

Only processes that have a rank and are not loader workers of one; a plan is named by the environment.
"""

import atexit
import os
import sys


def _arm() -> None:
    plan, rank = os.environ.get("SPE_FAULT_PLAN"), os.environ.get("RANK", os.environ.get("SLURM_PROCID"))
    trains = any(word.endswith(("pretrain.py", "finetune.py", ".pretrain", ".finetune")) for word in sys.orig_argv)
    if not plan or rank is None or not trains:
        return
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    import injection

    del sys.path[0]
    with open(plan) as file:
        injector = injection.install(injection.Plan.from_json(file.read()), int(rank))
    atexit.register(injector.write_counts)


_arm()
