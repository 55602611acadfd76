"""A small experiment file, and its runs as tests make them."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable
from pathlib import Path

from spe_dist.experiments.file import read_experiment
from spe_dist.experiments.plan import make_plan, output_folder
from spe_dist.experiments.record import Requests
from spe_dist.experiments.runner import Runner, alone_in, refuse_changed, still_needed

FILE = """
output: OUT
seeds: [0, 1]
values: {bert: some-bert, epochs: 3, text: TEXT}
settings:
  shards: {tokenizer: "{bert}"}
  pretrain: {encoder_placeholder: 1}
  finetune: {epochs: "{epochs}", learning_rate: 1e-4}
shares: {50: {epochs: 6}}
corpora:
  news: {name: News, train: TRAIN, dev: TRAIN, test: TRAIN}
  far: {train: TRAIN, dev: TRAIN}
shards: {web: {input: ["{text}"]}}
pretraining:
  spe: {encoder: "{bert}", shards: web, settings: {steps: 2}}
distant:
  ds: {encoder: "{bert}", corpus: far}
rows:
  bert: {name: BERT, encoder: "{bert}"}
  spe: {name: SPE, pretraining: spe}
  key: {name: Momentum encoder, pretraining: spe, export: key}
  cnn: {name: "- CNN", pretraining: spe, settings: {without_cnn: true}}
  ds: {name: SPE-DS, distant: ds}
tables:
  main: {corpus: news, rows: [bert, spe, ds]}
  parts: {corpus: news, rows: [spe, cnn, key]}
  shares: {corpus: news, rows: [bert, spe], shares: [50]}
""".replace("  pretrain: {encoder_placeholder: 1}\n", "")


def run(folder: Path, only: tuple[str, ...] = (), renew: bool = False, jobs: int = 1, **values: str) -> tuple[int, str]:
    """Status and output of a run of file.yaml."""
    experiment = read_experiment(folder / "file.yaml", values)
    plan = make_plan(experiment, only)
    requests = Requests(plan, output_folder(experiment))
    plan = still_needed(plan, requests)
    stream = io.StringIO()
    with alone_in(requests.output, plan):
        refuse_changed(plan, requests, renew)
        status = Runner(plan, requests, jobs, stream=stream).run()
    return status, stream.getvalue()


def made(folder: Path) -> list[str]:
    """Ids of the pieces whose commands were started since the last call, in order."""
    order = folder / "order.txt"
    lines = order.read_text().splitlines() if order.exists() else []
    order.unlink(missing_ok=True)
    return [str(Path(line).relative_to(folder / "OUT").parent) for line in lines]


def calls(folder: Path, piece: str) -> list[str]:
    return (folder / "OUT" / piece / "run" / "calls.txt").read_text().splitlines()


def once_there(path: Path, action: Callable[[], None]) -> None:
    """Call `action` from a thread of its own as soon as the file exists."""

    def wait() -> None:
        deadline = time.monotonic() + 240
        while not path.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        action()

    threading.Thread(target=wait, daemon=True).start()


def replace(folder: Path, old: str, new: str) -> None:
    text = (folder / "file.yaml").read_text()
    assert old in text
    (folder / "file.yaml").write_text(text.replace(old, new))
