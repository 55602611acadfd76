"""What a check trains on, made from the demo's world: shards, labelled sentences, an encoder to fine-tune.

Nothing is downloaded, and what is labelled is in words already: reading it needs no splitter.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from spe_dist.demo.sentences import TEXT_FILE, write_demo_corpus
from spe_dist.demo.shards import HELD_OUT, SEED, VOCABULARY
from spe_dist.errors import LaunchError
from spe_dist.utils.files import write_atomically

SHARDS, START = "shards", "start"
TRAIN, DEV = "train.json", "dev.json"
SENTENCES = 20_000
LABELLED = 2_000
STEPS_OF_START = 150  # of the pre-training that the encoder comes from


def make_data(folder: Path, sentences: int = SENTENCES, steps: int = STEPS_OF_START) -> None:
    """Write shards/, start/, train.json and dev.json below `folder`; shards and start that are there stay.

    Raises:
        SpeError: there is no space, or a part of it failed.
    """
    from spe_dist.data.build.make import make_shards
    from spe_dist.data.shards.manifest import MANIFEST_NAME

    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        corpus = Path(scratch)
        write_demo_corpus(corpus, sentences, SEED)
        for name in (TRAIN, DEV):
            rows = json.loads((corpus / "extraction" / name).read_text(encoding="utf-8"))[:LABELLED]
            write_atomically(folder / name, json.dumps(rows, ensure_ascii=False) + "\n")
        if not (folder / SHARDS / MANIFEST_NAME).exists():
            make_shards(
                [str(corpus / TEXT_FILE)],
                str(folder / SHARDS),
                tokenizer=None,
                train_vocab=VOCABULARY,
                words="spaces",
                held_out=HELD_OUT,
                quiet=True,
            )
        if not (folder / START / "config.json").exists():
            run = corpus / "run"
            _spe("pretrain", "--preset=demo", f"--shards={folder / SHARDS}", f"--output={run}", f"--steps={steps}")
            _spe("export", run, folder / START)


def is_whole(folder: Path) -> bool:
    """Whether `folder` holds all of it."""
    parts = (f"{SHARDS}/manifest.json", f"{START}/config.json", TRAIN, DEV)
    return all((folder / part).is_file() for part in parts)


def _spe(*arguments: object) -> None:
    command = [sys.executable, "-m", "spe_dist", *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    if done.returncode:
        raise LaunchError(f"{' '.join(command)} ended with status {done.returncode}:\n{done.stdout}")


def main() -> None:
    """Make the data where they are not whole yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sentences", type=int, default=SENTENCES, help="in the shards [%(default)s]")
    parser.add_argument("--steps", type=int, default=STEPS_OF_START, help="of the encoder's pre-training [%(default)s]")
    options = parser.parse_args()
    if not is_whole(options.folder):
        make_data(options.folder, options.sentences, options.steps)


if __name__ == "__main__":
    main()
