"""Stands for the commands of an experiment: writes what each of them ends with, as the environment's FAKE_* say.

FAKE_FAIL    part of an output path: such a piece fails
FAKE_STALL   part of an output path: such a piece runs until OUTPUT/STOP or an interrupt, then leaves unfinished
FAKE_STATUS  the exit status with which it does so [0]
"""

import itertools
import json
import os
import sys
import time
from pathlib import Path


def f1(text: str) -> dict[str, float]:
    return {"precision": float(text) + 0.1, "recall": float(text) - 0.1, "f1": float(text)}


def main() -> int:
    arguments = sys.argv[1:]
    options = {name[2:]: value for name, value in itertools.pairwise(arguments) if name[:2] == "--"}
    output = Path(
        options.get("output", arguments[arguments.index("--overwrite") - 1] if "--overwrite" in arguments else "")
    )
    output.mkdir(parents=True, exist_ok=True)
    with (output / "calls.txt").open("a") as calls:
        calls.write(" ".join(arguments) + "\n")
    with Path(os.environ["FAKE_ORDER"]).open("a") as order:
        order.write(f"{output}\n")
    print("line 1\nline 2", flush=True)
    if os.environ.get("FAKE_FAIL", "//") in str(output):
        print("error: asked to fail", file=sys.stderr)
        return 3
    if os.environ.get("FAKE_STALL", "//") in str(output):
        try:
            while not (output / "STOP").exists():
                time.sleep(0.02)
        except KeyboardInterrupt:
            pass
        return int(os.environ.get("FAKE_STATUS", "0"))
    if "shards" in options:
        (output / "checkpoints" / "step_2").mkdir(parents=True, exist_ok=True)
        (output / "checkpoints" / "latest").write_text("step_2\n")
        (output / "checkpoints" / "step_2" / "state.json").write_text('{"step": 2, "total_steps": 2}')
    elif "input" in options:
        (output / "manifest.json").write_text("{}")
    elif "encoder" in options:
        (output / "spe_config.json").write_text("{}")
    elif "sentences" in options:
        (output / "text.txt").write_text("A b c .\n")
    else:
        (output / "model").mkdir(exist_ok=True)
        base = 0.5 + 0.01 * int(options["seed"]) + 0.1 * float(options["train_share"])
        test = {"entity": f1(str(base)), "relation": f1(str(base - 0.2)), "ent_rel": f1(str(base - 0.3))}
        dev = {name: f1(str(score["f1"] + 0.05)) for name, score in test.items()}
        (output / "scores.json").write_text(json.dumps({"dev": dev, "test": test, "finished": True}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
