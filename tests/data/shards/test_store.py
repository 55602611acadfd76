"""Random access to blocks: locally and behind URLs, always against the manifest; what `verify` finds."""

from __future__ import annotations

import io
import multiprocessing
import pickle
import subprocess
import sys
import tarfile
from functools import partial

import pytest
from blocks import flip_byte, same_blocks
from old_shards import make_old
from project import ROOT

from spe_dist.data.shards.store import ShardStore
from spe_dist.errors import DataError


def test_blocks_are_read_in_any_order_with_their_sentence_ids(random_shards):
    store = ShardStore.open(str(random_shards))
    assert store.block_sentences.tolist() == [100, 90, 80, 100, 30] and store.n_sentences == 400
    for index, first in ((3, 270), (0, 0), (4, 370), (3, 270)):
        block = store.block(index)
        assert (block.first_sentence_id, block.n_sentences) == (first, store.block_sentences[index])
    held_out = ShardStore.open(str(random_shards), "held_out")
    assert held_out.first_sentence_id == 400 and held_out.block(0).first_sentence_id == 400
    assert store.block_of(270) == (3, 0) and store.block_of(269) == (2, 79) and held_out.block_of(449) == (0, 49)
    with pytest.raises(DataError, match=r"sentence 400 .*0 to 399"):
        store.block_of(400)


def test_a_store_works_after_pickling_and_in_other_processes(random_shards):
    store = ShardStore.open(str(random_shards))
    assert same_blocks(pickle.loads(pickle.dumps(store)), store)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(store.block, (2,)).n_sentences == 80


def test_importing_the_store_is_cheap():
    heavy = "{'torch', 'spacy', 'transformers', 'webdataset'}"
    program = f"import sys, spe_dist.data.shards.store; print(sorted({heavy} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_an_unknown_split_and_a_missing_folder_are_errors_with_the_remedy(random_shards, tmp_path):
    with pytest.raises(DataError, match=r"split='test'.*held_out.*train"):
        ShardStore.open(str(random_shards), "test")
    with pytest.raises(DataError, match="spe shards make"):
        ShardStore.open(str(tmp_path))


def test_intact_shards_verify(random_shards):
    store = ShardStore.open(str(random_shards))
    store.check_files()
    report = store.verify()
    assert report.ok, str(report)
    assert (report.shards, report.blocks, report.sentences) == (3, 6, 450) and "webdataset" in str(report)


def test_a_flipped_byte_is_found_by_block_and_by_verify(shards):
    store = ShardStore.open(str(shards))
    entry = store.manifest.splits["train"][1].blocks[0]
    flip_byte(shards / "train-00001.tar", entry.offset + entry.bytes // 2)
    store.check_files()
    with pytest.raises(DataError, match=r"train-00001\.tar, block 00000003\.npz.*checksum.*spe shards verify"):
        store.block(3)
    assert store.block(4).n_sentences == 30
    report = store.verify()
    assert not report.ok and "train-00001.tar, block 00000003.npz" in str(report)


def test_a_flipped_byte_in_a_tar_header_which_webdataset_passes_over_is_found(shards):
    store = ShardStore.open(str(shards))
    flip_byte(shards / "train-00000.tar", store.manifest.splits["train"][0].blocks[1].offset - 512 + 5)
    assert "webdataset yields" in str(store.verify())


def test_a_member_with_terabytes_of_holes_is_not_read(shards):
    hole = tarfile.TarInfo("00000099.npz")
    hole.pax_headers = {"GNU.sparse.size": str(1 << 40), "GNU.sparse.major": "1", "GNU.sparse.minor": "0"}
    hole.size = 512
    with tarfile.open(shards / "train-00000.tar", "a", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(hole, io.BytesIO(b"1\n0\n0\n".ljust(512, b"\0")))
    found = str(ShardStore.open(str(shards)).verify())
    assert "member 00000099.npz declares more bytes than the shard has" in found and "webdataset stops" not in found


def test_a_truncated_tar_is_found(shards):
    store = ShardStore.open(str(shards))
    path = shards / "train-00000.tar"
    path.write_bytes(path.read_bytes()[: store.manifest.splits["train"][0].blocks[2].offset + 100])
    with pytest.raises(DataError, match=r"train-00000\.tar .* bytes instead of"):
        store.check_files()
    with pytest.raises(DataError, match="cut short"):
        store.block(2)
    assert "cut short" in str(store.verify())


def test_a_missing_shard_and_one_too_many_are_found(shards):
    store = ShardStore.open(str(shards))
    (shards / "train-00001.tar").rename(shards / "train-00007.tar")
    for action in (store.check_files, partial(store.block, 4)):
        with pytest.raises(DataError, match=r"train-00001\.tar.*missing"):
            action()
    assert "train-00001.tar: missing" in str(store.verify()) and "train-00007.tar: a shard that" in str(store.verify())


@pytest.mark.parametrize("change", ["added", "removed"])
def test_a_member_too_many_or_too_few_is_found(shards, change):
    path = shards / "train-00000.tar"
    with tarfile.open(path) as tar:
        members = [(member, tar.extractfile(member).read()) for member in tar]
    members = members[:-1] if change == "removed" else [*members, (tarfile.TarInfo("00000099.npz"), members[0][1])]
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for member, data in members:
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    found = str(ShardStore.open(str(shards)).verify())
    assert ("member 00000002.npz is missing" if change == "removed" else "member 00000099.npz is not in") in found


def test_a_block_of_other_counts_than_the_manifest_says_is_an_error(shards):
    make_old(shards)
    text = (shards / "manifest.json").read_text().replace('"sentences": 90', '"sentences": 91')
    (shards / "manifest.json").write_text(text)
    with pytest.raises(DataError, match=r"block 00000001\.npz.*manifest says"):
        ShardStore.open(str(shards)).block(1)
