from itertools import pairwise

import pytest

from spe_dist.config.pretraining import CorruptionConfig
from spe_dist.data.batches.inspect import SPAN_NAMES, describe_sentence
from spe_dist.data.shards.store import ShardStore
from spe_dist.errors import DataError


def rows_of(text: str) -> list[tuple[str, str]]:
    return [(line[:16].strip(), line[16:]) for line in text.splitlines()]


def views(text: str) -> list[list[str]]:
    """The spans of each sequence, as shown between the bars."""
    return [
        [part.strip() for part in value.removeprefix("[CLS]").removesuffix("[SEP]").split(" |")]
        for name, value in rows_of(text)
        if name in ("span-pair view", "context view", "further copy")
    ]


def test_a_sentence_shows_words_spans_targets_and_views(random_shards):
    store = ShardStore.open(str(random_shards))
    text = describe_sentence(store, 123, CorruptionConfig(), seed=2, epoch=1)
    rows = dict(rows_of(text))
    assert rows["sentence"] == "123 (split train, block 1, place 23), seed 2, epoch 1"
    words = rows["text"].split()
    borders = [int(rows[f"span {name}"].split("[")[1].split(",")[0]) for name in SPAN_NAMES] + [len(words)]
    for name, (start, end) in zip(SPAN_NAMES, pairwise(borders), strict=True):
        assert rows[f"span {name}"].split(") ", 1)[-1].split()[-(end - start) or 99 :] == words[start:end]
    assert rows["span-pair view"].count("|") == rows["context view"].count("|") == 4
    pair, context = views(text)
    assert pair[0] == pair[2] == pair[4] == context[1] == context[3] == "[MASK]"


@pytest.mark.parametrize("sentence", [0, 5, 99, 399])
def test_the_two_views_show_all_pieces_but_the_targets(random_shards, sentence):
    store = ShardStore.open(str(random_shards))
    text = describe_sentence(store, sentence, CorruptionConfig(view_masks="each"))
    pair, context = views(text)
    shown = " ".join(pair[k] if k % 2 else context[k] for k in range(5)).split()
    targets = [p for name, value in rows_of(text) if name == "" for p in value.split(" -> ")[1].split()]
    pieces = dict(rows_of(text))["pieces"].split()
    assert sorted([p for p in shown if p != "[MASK]"] + targets) == sorted(pieces)
    assert shown.count("[MASK]") == len(targets)


def test_further_copies_are_shown(random_shards):
    store = ShardStore.open(str(random_shards))
    text = describe_sentence(store, 3, CorruptionConfig(permutations=3))
    assert "copy 2, label" in text and "further copy" in text


def test_the_same_arguments_give_the_same_text_and_another_epoch_another(random_shards):
    store = ShardStore.open(str(random_shards))
    texts = [describe_sentence(store, 7, CorruptionConfig(), epoch=epoch) for epoch in (0, 0, 1)]
    assert texts[0] == texts[1] != texts[2]


def test_held_out_sentences_have_the_ids_after_the_training_sentences(random_shards):
    store = ShardStore.open(str(random_shards), "held_out")
    assert "430 (split held_out, block 0, place 30)" in describe_sentence(store, 430, CorruptionConfig())
    with pytest.raises(DataError, match="450"):
        describe_sentence(store, 450, CorruptionConfig())
