"""Every reader on damaged files: `make test` gives each a few, SPE_FUZZ_SECONDS=3600 shares an hour among them.

A fault is repeated by its reader and seed: SPE_FUZZ_SEED=17 pytest tests/faults/fuzz -k "manifest and not before".
"""

from __future__ import annotations

import os
import random
import shutil
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from old_shards import make_old

from tests.faults.fuzz.engine import Fuzz, Reader
from tests.faults.fuzz.readers.corpora import corpus_readers
from tests.faults.fuzz.readers.models import model_readers
from tests.faults.fuzz.readers.runs import checkpoint_readers, run_readers
from tests.faults.fuzz.readers.settings import setting_readers
from tests.faults.fuzz.readers.shards import shard_readers
from tests.faults.fuzz.readers.text import text_readers

SECONDS = float(os.environ.get("SPE_FUZZ_SECONDS", "0"))
SEED = os.environ.get("SPE_FUZZ_SEED")
EXAMPLES = 12
KINDS = ("text", "corpora", "shards", "settings", "models", "runs", "checkpoints")
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def readers(random_shards, extractor_folder, predecessor_file, made_run, tmp_path_factory) -> dict[str, list[Reader]]:
    old = tmp_path_factory.mktemp("old") / "shards"
    shutil.copytree(random_shards, old)
    make_old(old)
    return {
        "text": text_readers(),
        "corpora": corpus_readers(),
        "shards": shard_readers(random_shards, old),
        "settings": setting_readers(),
        "models": model_readers(extractor_folder, predecessor_file),
        "runs": run_readers(),
        "checkpoints": checkpoint_readers(made_run),
    }


@pytest.fixture
def fuzzes(request: pytest.FixtureRequest, readers: dict[str, list[Reader]], tmp_path: Path) -> list[Fuzz]:
    made = []
    for number, reader in enumerate(readers[request.param]):
        folder = tmp_path / f"{number}"
        folder.mkdir()
        made.append(Fuzz(reader, folder))
    return made


def check(fuzz: Fuzz, seed: int) -> None:
    fault = fuzz.fault(seed)
    assert fault is None, f"{fuzz.reader.name}, seed {seed}: {fault}"


def check_examples(fuzz: Fuzz) -> None:
    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
    @given(seed=st.integers(0, 2**32))
    def any_damage(seed: int) -> None:
        check(fuzz, seed)

    any_damage()


@pytest.mark.skipif(bool(SECONDS or SEED), reason="the long form runs in its place")
@pytest.mark.parametrize("fuzzes", KINDS, indirect=True)
def test_a_damaged_file_is_read_or_refused_in_one_line(fuzzes):
    for fuzz in fuzzes:
        check_examples(fuzz)


@pytest.mark.skipif(SEED is None, reason="SPE_FUZZ_SEED is not set")
@pytest.mark.parametrize("fuzzes", KINDS, indirect=True)
def test_one_seed(fuzzes):
    for fuzz in fuzzes:
        check(fuzz, int(SEED or 0))


@pytest.mark.timeout(0)
@pytest.mark.skipif(not SECONDS, reason="SPE_FUZZ_SECONDS is not set")
@pytest.mark.parametrize("fuzzes", KINDS, indirect=True)
def test_a_long_time_of_damaged_files(fuzzes, request, readers):
    """All faults of its share of the time, each kind once, with the seed that repeats it."""
    share = SECONDS / sum(map(len, readers.values()))
    draw, faults = random.Random(), dict[str, str]()
    for fuzz in fuzzes:
        end = time.monotonic() + share
        while time.monotonic() < end:
            seed = draw.randrange(2**32)
            if fault := fuzz.fault(seed):
                kind = f"{fuzz.reader.name}: {fault.split(':')[0]} {fault.split(':')[1][:30] if ':' in fault else ''}"
                if kind not in faults:
                    faults[kind] = f"seed {seed}: {fault}"
                    print(f"{kind}\n    {faults[kind]}", flush=True)
        print(f"{fuzz.reader.name}: {fuzz.readings:,} readings, {fuzz.refused:,} refused", flush=True)
    assert not faults, "\n".join(f"{kind}\n    {fault}" for kind, fault in faults.items())
