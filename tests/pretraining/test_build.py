"""What is checked before the parts of a pre-training run are put together."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from transformers import BertConfig, BertModel

from spe_dist.config.loading import resolve
from spe_dist.data.batches.order import Order
from spe_dist.data.shards.store import ShardStore
from spe_dist.data.text.vocabulary import load_tokenizer
from spe_dist.errors import ConfigError
from spe_dist.model.loading import LoadedEncoder
from spe_dist.pretraining.build import check_cache, open_encoder


def store(shards: int, ranges: bool = False, local: bool = False) -> SimpleNamespace:
    """As many shards of one GiB as are given."""
    manifest = SimpleNamespace(shards=lambda split: shards * [SimpleNamespace(bytes=2**30)])
    return SimpleNamespace(is_local=local, has_ranges=lambda: ranges, manifest=manifest, source="https://host/shards")


def order(by_shards: bool) -> Order:
    return Order(np.full(100, 10), 0, 4, 8, shard_blocks=np.full(50, 2) if by_shards else None)


def test_a_cache_that_would_lose_whole_shards_before_they_are_read_is_refused_with_the_remedy():
    with pytest.raises(ConfigError, match=r"cache_gib=20, .* all of them in turn: set order=shards, or cache_gib=50"):
        check_cache(store(50), order(False), 20.0)
    with pytest.raises(ConfigError, match=r"cache_gib=7, but 4 streams read .* set cache_gib=8, or fewer streams"):
        check_cache(store(50), order(True), 7.0)


@pytest.fixture
def encoder_of(demo_shards, tmp_path):
    """encoder_of(positions) -> folder of a small BERT with the vocabulary of the demo's shards."""

    def make(positions: int) -> Path:
        tokenizer = load_tokenizer(demo_shards / "tokenizer")
        tokenizer.save_pretrained(str(tmp_path))
        sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48}
        bert = BertConfig(vocab_size=len(tokenizer), max_position_embeddings=positions, **sizes)
        BertModel(bert).save_pretrained(str(tmp_path))
        return tmp_path

    return make


@pytest.mark.parametrize(
    ("settings", "more", "words"),
    [
        ({}, 2, "view_masks=one gives sequences of up to {}"),
        ({"view_masks": "each"}, 0, "view_masks=each gives sequences of up to {}"),
        ({"mlm": True, "tbo": False, "spo": False, "cspo": False}, 0, "the shards in {} give sequences of up to {}"),
    ],
)
def test_an_encoder_needs_the_positions_of_the_longest_sequence_that_is_trained(
    demo_shards, encoder_of, settings, more, words
):
    store = ShardStore.open(str(demo_shards), "train")
    needed = store.manifest.max_pieces + more

    def start(positions: int) -> LoadedEncoder:
        return open_encoder(resolve([{**settings, "encoder": str(encoder_of(positions))}]), store)[0]

    assert start(needed).bert_config.max_position_embeddings == needed
    message = words.format(*([demo_shards] if words.count("{}") == 2 else []), needed)
    with pytest.raises(ConfigError, match=re.escape(message)) as raised:
        start(needed - 1)
    assert str(raised.value).endswith(f"make shards with --max_pieces {needed - 1 - more}")


def test_a_cache_that_is_large_enough_or_not_needed_is_taken():
    check_cache(store(50), order(True), 8.0)
    check_cache(store(50), order(False), 50.0)
    check_cache(store(3), order(True), 3.0)
    check_cache(store(50, ranges=True), order(False), 0.1)
    check_cache(store(50, local=True), order(False), 0.1)
