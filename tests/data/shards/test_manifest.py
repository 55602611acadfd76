"""The manifest and its index: they come back, earlier ones are read, and what is damaged is named."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
from old_shards import make_old, old_manifest

from spe_dist.data.shards.manifest import Manifest, TokenizerEntry
from spe_dist.data.shards.store import ShardStore
from spe_dist.errors import DataError

# What version 1 of the format gave for the shards of the fixture `random_shards`; runs over such shards resume by it.
HASH_OF_RANDOM_SHARDS = "e7e582e1b0ae948bd175d6fa0703bcf7bb6aa8482c860444bcd07bbcb43c5b0e"
SPECIAL = {"cls_id": 2, "sep_id": 3, "mask_id": 4, "pad_id": 0, "unk_id": 1}


def change(folder: Path, edit) -> None:
    """Rewrite manifest.json after `edit` changed its content."""
    file = folder / "manifest.json"
    content = json.loads(file.read_text())
    edit(content)
    file.write_text(json.dumps(content))


def test_a_manifest_comes_back_from_its_folder_and_its_file(shards, tmp_path):
    manifest = Manifest.load(shards)
    assert manifest == Manifest.load(str(shards / "manifest.json")) == manifest.save(shards)
    assert manifest.first_sentence_id("held_out") == manifest.n_sentences("train") == 400
    assert [len(shard.blocks) for shard in manifest.shards("train")] == [3, 2]
    entry = manifest.shards("train")[1].blocks[0]
    data = (shards / "train-00001.tar").read_bytes()[entry.offset : entry.offset + entry.bytes]
    assert (entry.member, entry.sentences) == ("00000003.npz", 100)
    assert entry.sha256 == hashlib.sha256(data).hexdigest()


def plain_hash(manifest: Manifest) -> str:
    splits = {
        split: [[shard.sha256, [block.sentences for block in shard.blocks]] for shard in shards]
        for split, shards in manifest.splits.items()
    }
    content = {
        "format_version": 1,
        "vocabulary_size": manifest.vocabulary_size,
        "vocabulary_sha256": manifest.vocabulary_sha256,
        "special_ids": [manifest.cls_id, manifest.sep_id, manifest.mask_id, manifest.pad_id, manifest.unk_id],
        "max_pieces": manifest.max_pieces,
        "splits": splits,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def test_the_hash_is_that_of_format_version_1_so_that_earlier_runs_resume(shards):
    manifest = Manifest.load(shards)
    assert manifest.hash() == plain_hash(manifest) == HASH_OF_RANDOM_SHARDS
    alone = replace(manifest, splits={"train": manifest.splits["train"][:1]})
    empty = replace(manifest, splits={"train": manifest.splits["train"], "held_out": ()})
    for other in (alone, empty):
        assert other.hash() == plain_hash(other) != HASH_OF_RANDOM_SHARDS


def test_the_hash_covers_what_training_depends_on(shards):
    manifest = Manifest.load(shards)
    same = replace(manifest, skipped={"short": 3}, tokenizer=replace(manifest.tokenizer, name="other"), index=None)
    assert same.hash() == manifest.hash()
    changes = [{"vocabulary_sha256": "cd"}, {"max_pieces": 64}, {"mask_id": 5}, {"splits": {"train": ()}}]
    assert len({manifest.hash(), *(replace(manifest, **one).hash() for one in changes)}) == 5


def test_shards_of_format_version_1_are_read_and_are_the_same_to_a_run(shards):
    before, blocks = Manifest.load(shards), [ShardStore.open(str(shards)).block(i) for i in range(5)]
    make_old(shards)
    store = ShardStore.open(str(shards))
    assert store.manifest.hash() == before.hash() and store.verify().ok
    assert not store.manifest.splits["train"][0].blocks.has_sha256
    for name in ("member", "offset", "bytes", "crc32", "sentences", "words", "pieces"):
        for old, new in zip(store.manifest.splits["train"], before.splits["train"], strict=True):
            assert [getattr(b, name) for b in old.blocks] == [getattr(b, name) for b in new.blocks]
    assert all((store.block(i).piece_ids_T == blocks[i].piece_ids_T).all() for i in range(5))


@pytest.mark.parametrize(
    "text", ["", "{", "{}", "[1]", '{"format_version": 99}', '{"format_version": 1, "splits": {}}']
)
def test_what_is_no_manifest_is_an_error(text):
    with pytest.raises(DataError, match="manifest"):
        Manifest.parse(text)


@pytest.mark.parametrize(
    "name", ["../train-00000.tar", "/tmp/train-00000.tar", "..", "$(touch X).tar", "a b.tar", "-rf", "a\n", "é.tar"]
)
@pytest.mark.parametrize("which", ["shard", "index", "old shard"])
def test_a_manifest_names_files_of_its_folder_by_letters_that_no_path_and_no_shell_reads_otherwise(shards, name, which):
    def edit(content):
        if which == "index":
            content["index"]["name"] = name
        else:
            content["splits"]["train"][0]["name"] = name

    if which == "old shard":
        make_old(shards)
    change(shards, edit)
    with pytest.raises(DataError, match=r"names the file .* do not use these shards"):
        Manifest.load(shards)


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (lambda block: block.update(offset=513), "inside a block of the tar"),
        (lambda block: block.update(member="../../00000000.npz"), "is called"),
        (lambda block: block.update(member="000000001.npz"), "is called"),
        (lambda block: block.update(sentences=-1), "cannot be"),
        (lambda block: block.update(words=1.5), "no whole number"),
        (lambda block: block.update(crc32=1 << 32), "crc32 that is none"),
        (lambda block: block.update(crc32=1 << 70), "out of range"),
        (lambda block: block.update(pieces="3"), "no whole number"),
        (lambda block: block.update(offset=20480), "overlaps"),
        (lambda block: block.pop("crc32"), "crc32"),
    ],
)
def test_a_block_of_format_version_1_that_cannot_be_is_an_error(shards, edit, reason):
    make_old(shards)
    change(shards, lambda content: edit(content["splits"]["train"][0]["blocks"][0]))
    with pytest.raises(DataError, match=rf"manifest\.json is damaged.*{reason}"):
        Manifest.load(shards)


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (lambda content: content["splits"]["train"][0].update(blocks=4), "7 blocks, the index has 6"),
        (lambda content: content["splits"]["train"][0].update(blocks=-3), "-3, no whole number"),
        (lambda content: content["splits"]["train"][0].update(sentences=7), "has 7 sentences, its blocks have 270"),
        (lambda content: content["splits"]["train"][0].update(bytes=9_000), "outside of the shard"),
        (lambda content: content["index"].update(columns=["offset"]), "columns"),
        (lambda content: content["index"].update(columns=["9" * 3000]), "9{20}[.]{3}, this program reads"),
        (lambda content: content["index"].update(sha256="0"), "no SHA-256"),
        (lambda content: content["index"].update(bytes=1e30), "no whole number"),
        (lambda content: content.pop("index"), "index"),
    ],
)
def test_a_manifest_that_contradicts_its_index_is_an_error(shards, edit, reason):
    change(shards, edit)
    with pytest.raises(DataError, match=reason):
        Manifest.load(shards)


def test_a_damaged_or_missing_index_is_an_error_that_names_it(shards):
    index = shards / "blocks.npy"
    data = index.read_bytes()
    for damaged, reason in (
        (data[:-1], "instead of"),
        (data[:200] + bytes([data[200] ^ 1]) + data[201:], "damaged"),
        (None, "cannot be read"),
    ):
        index.unlink() if damaged is None else index.write_bytes(damaged)
        with pytest.raises(DataError, match=rf"blocks\.npy .*{reason}.*make the shards again"):
            Manifest.load(shards)


def test_an_index_without_sha256_is_not_written(shards, tmp_path):
    old = Manifest.parse(old_manifest(Manifest.load(shards)))
    with pytest.raises(ValueError, match="without SHA-256"):
        old.save(tmp_path)


def test_a_folder_without_manifest_is_an_error_with_the_remedy(tmp_path):
    with pytest.raises(DataError, match=r"manifest\.json does not exist.*spe shards make"):
        Manifest.load(tmp_path)


def test_a_split_without_shards_is_kept(shards, tmp_path):
    manifest = Manifest(
        TokenizerEntry("wordpiece", "name", True, {}),
        500,
        32 * "ab",
        **SPECIAL,
        max_pieces=128,
        splits={"train": Manifest.load(shards).splits["train"], "held_out": ()},
    )
    assert manifest.save(tmp_path).shards("held_out") == () and Manifest.load(tmp_path).n_sentences("train") == 400
