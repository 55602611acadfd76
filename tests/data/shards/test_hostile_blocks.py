"""Blocks whose checksum is right and whose content is wrong: found when opened, nothing run, nothing huge made."""

from __future__ import annotations

import io
import pickle
import random
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from spe_dist.data.shards.blocks import ARRAYS, Block, write_shard
from spe_dist.data.shards.manifest import Manifest
from spe_dist.data.shards.store import ShardStore
from spe_dist.errors import DataError

VOCABULARY, MAX_PIECES = 12, 8


def sound_block(rng: random.Random) -> Block:
    sentences = [[rng.randint(1, 2) for _ in range(rng.randint(1, 3))] for _ in range(rng.randint(1, 4))]
    firsts = [sum(words[:i]) for words in sentences for i in range(len(words))]
    total = sum(map(sum, sentences))
    return Block(
        0,
        np.array([rng.randrange(VOCABULARY) for _ in range(total)], np.uint16),
        np.cumsum([0, *map(sum, sentences)]).astype(np.int32),
        np.array(firsts, np.uint8),
        np.cumsum([0, *map(len, sentences)]).astype(np.int32),
    )


def is_sound(block: Block) -> bool:
    """The format's rules, sentence by sentence."""
    pieces, firsts = block.piece_ids_T.tolist(), block.first_pieces_W.tolist()
    by_pieces, by_words = block.piece_offsets_N1.tolist(), block.word_offsets_N1.tolist()
    if len(by_pieces) != len(by_words) or len(by_pieces) < 2:
        return False
    for borders, total in ((by_pieces, len(pieces)), (by_words, len(firsts))):
        if borders[0] != 0 or borders[-1] != total or borders != sorted(set(borders)):
            return False
    for i in range(len(by_pieces) - 1):
        own, words = pieces[by_pieces[i] : by_pieces[i + 1]], firsts[by_words[i] : by_words[i + 1]]
        if len(own) + 2 > MAX_PIECES or len(own) < len(words) or words[0] != 0:
            return False
        if words != sorted(set(words)) or words[-1] >= len(own):
            return False
    return all(0 <= piece < VOCABULARY for piece in pieces)


def test_what_the_check_of_a_block_finds_is_what_a_plain_reading_finds():
    rng, sound = random.Random(0), 0
    for _ in range(3_000):
        block = sound_block(rng)
        assert block.problem(VOCABULARY, MAX_PIECES) is None and is_sound(block)
        field = rng.choice(["piece_ids_T", "piece_offsets_N1", "first_pieces_W", "word_offsets_N1"])
        array = getattr(block, field).copy()
        if field == "piece_ids_T" and rng.random() < 0.5:
            array = array.astype(np.int32)
        limits = np.iinfo(array.dtype)
        value = rng.choice([0, 1, 2, 3, 5, VOCABULARY, limits.min, limits.max])
        array[rng.randrange(array.size)] = value
        changed = replace(block, **{field: array})
        assert (changed.problem(VOCABULARY, MAX_PIECES) is None) == is_sound(changed), (field, changed)
        sound += is_sound(changed)
    assert 0 < sound < 3_000


def with_block(folder: Path, target: Path, change) -> ShardStore:
    """The shards with their first block changed, every checksum and count of the manifest right."""
    shutil.copytree(folder, target)
    manifest = Manifest.load(target)
    store = ShardStore.open(str(target))
    entry = manifest.shards("train")[0]
    blocks = [change(store.block(0)), *(store.block(i) for i in range(1, len(entry.blocks)))]
    changed = write_shard(target / entry.name, list(enumerate(blocks)))
    splits = {**manifest.splits, "train": (changed, *manifest.shards("train")[1:])}
    replace(manifest, splits=splits).save(target)
    return ShardStore.open(str(target))


def reversed_offsets(block: Block) -> Block:
    middle = block.piece_offsets_N1[1:-1][::-1]
    return replace(block, piece_offsets_N1=np.concatenate([[0], middle, block.piece_offsets_N1[-1:]]).astype(np.int32))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda b: replace(b, piece_ids_T=np.full_like(b.piece_ids_T, 65_535)), "piece id 65535 in a vocabulary"),
        (lambda b: replace(b, piece_ids_T=np.full(b.n_pieces, -1, np.int32)), "piece id -1 in a vocabulary"),
        (reversed_offsets, "offsets that do not ascend"),
        (
            lambda b: replace(
                b, piece_offsets_N1=np.concatenate([b.piece_offsets_N1[:-1], [1 << 30]]).astype(np.int32)
            ),
            "offsets run from 0 to 1073741824",
        ),
        (
            lambda b: replace(b, piece_ids_T=b.piece_ids_T.astype(np.float32)),
            "piece_ids.npy is not an array of type <u2 or",
        ),
        (lambda b: replace(b, piece_ids_T=b.piece_ids_T[:, None]), "in one dimension"),
    ],
)
def test_wrong_content_under_a_right_checksum_is_named_when_the_block_is_opened(
    random_shards, tmp_path, change, problem
):
    store = with_block(random_shards, tmp_path / "shards", change)
    with pytest.raises(
        DataError, match=rf"shard train-00000\.tar, block 00000000\.npz: .*{problem}.*spe shards verify"
    ):
        store.block(0)
    store.block(1)
    assert problem in str(store.verify())


class Touch:
    """Pickled, this would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_objects_in_an_array_are_never_unpickled(tmp_path):
    block, mark = sound_block(random.Random(1)), tmp_path / "mark"
    objects = np.array([Touch(mark)], dtype=object)
    buffer = io.BytesIO()
    np.savez(buffer, piece_ids=objects, **{name: block.piece_offsets_N1 for name in ARRAYS if name != "piece_ids"})
    with pytest.raises(DataError, match=r"piece_ids\.npy is not an array of type"):
        Block.from_bytes(buffer.getvalue())
    assert not mark.exists()
    pickle.loads(pickle.dumps(Touch(mark)))
    assert mark.exists(), "would the test see it?"


def test_compressed_and_huge_arrays_are_refused_before_memory_is_asked_for():
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ARRAYS:
            archive.writestr(f"{name}.npy", bytes(1 << 20))
    with pytest.raises(DataError, match="compressed"):
        Block.from_bytes(bomb.getvalue())
    data = sound_block(random.Random(2)).to_bytes()
    for claimed in (b"(9999999999,)", b"(-1,)", b"(1, 2)", b"()", b"(1e9,)"):
        start = data.index(b"'shape': (") + len(b"'shape': ")
        end = data.index(b"\n", start)
        padded = data[:start] + (claimed + b", }").ljust(end - start) + data[end:]
        with pytest.raises(DataError, match="not a block of sentences"):
            Block.from_bytes(padded)


def test_any_damaged_byte_gives_a_block_or_an_error():
    rng = random.Random(3)
    for _ in range(2_000):
        data = bytearray(sound_block(rng).to_bytes())
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        try:
            Block.from_bytes(bytes(data[: rng.choice([len(data), rng.randrange(len(data))])]))
        except DataError as error:
            assert "\n" not in str(error)
