"""The index of a checkpoint's tensors: what it is read as, and that nothing else is taken for one."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spe_dist.distributed.fragments.index import Entry, Index, Part, read_index, write_index
from spe_dist.distributed.fragments.tensors import Captured, CheckpointTensors, read_whole
from spe_dist.errors import CheckpointError
from spe_dist.moco.fragments import Fragment

FILE = "rank_00000.safetensors"
INDEX = Index(
    {
        "weights/a": Entry(torch.float32, (2, 3), (Part(FILE, 0, 4), Part("rank_00001.safetensors", 4, 2))),
        "pair_queue/cursor": Entry(torch.int64, (), (Part(FILE, 0, 1),)),
    },
    {"adam_step": 7},
)


def test_an_index_is_read_as_it_was_written(tmp_path):
    write_index(tmp_path, INDEX)
    found = read_index(tmp_path)
    assert dict(found.tensors) == dict(sorted(INDEX.tensors.items())) and found.values == INDEX.values
    assert found.names("weights") == ["a"] and found.names("exp_avg") == []


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda d: d.update(format=2), "format 2"),
        (lambda d: d.update(format=[0] * 3000), r"format \[0, 0, "),
        (lambda d: d["tensors"]["weights/a"].update(type="9" * 3000), "KeyError: .{0,300}[)]; use"),
        (lambda d: d.update(files=["../state.json", d["files"][1]]), "is not the name of a rank's file"),
        (lambda d: d["tensors"]["weights/a"].update(parts=[[0, 0, 4]]), "4 of 6 numbers"),
        (lambda d: d["tensors"]["weights/a"].update(parts=[[0, 0, 4], [1, 3, 3]]), "leave a gap at 4 or overlap"),
        (lambda d: d["tensors"]["weights/a"].update(parts=[[0, 0, 4], [9, 4, 2]]), "IndexError"),
        (lambda d: d["tensors"]["weights/a"].update(type="object"), "KeyError"),
        (lambda d: d["tensors"]["weights/a"].update(shape=[-2, -3]), "not a count"),
        (lambda d: d["tensors"]["weights/a"].update(shape=[True, 6]), "not a count"),
        (lambda d: d.update(tensors=None), "AttributeError"),
        (lambda d: d.pop("values"), "KeyError"),
    ],
)
def test_a_changed_index_is_refused_in_one_line(tmp_path, change, word):
    write_index(tmp_path, INDEX)
    document = json.loads((tmp_path / "index.json").read_text())
    change(document)
    (tmp_path / "index.json").write_text(json.dumps(document))
    with pytest.raises(CheckpointError, match=word) as raised:
        read_index(tmp_path)
    assert "\n" not in str(raised.value)


@given(sizes=st.lists(st.integers(1, 7), min_size=1, max_size=6), wanted=st.lists(st.integers(1, 7), max_size=8))
def test_any_cut_of_a_tensor_is_read_in_any_other_cut(tmp_path_factory, sizes, wanted):
    """Each part is a fragment of one rank here; the planner maps saved parts to wanted ones all the same."""
    folder = tmp_path_factory.mktemp("cut")
    whole = torch.arange(float(sum(sizes)))
    shape = (len(whole),)

    class State:
        def fragments(self):
            starts = [sum(sizes[:i]) for i in range(len(sizes))]
            return [Fragment("weights/a", shape, at, whole[at : at + n]) for at, n in zip(starts, sizes, strict=True)]

        def values(self):
            return {}

    Captured([State()], copy=True).write(folder, None)
    start, fragments = 0, []
    for numel in wanted:
        numel = min(numel, len(whole) - start)
        fragments.append(Fragment("weights/a", shape, start, torch.empty(numel, dtype=torch.float64)))
        start += numel
    fragments = [fragment for fragment in fragments if fragment.tensor.numel()]
    CheckpointTensors(folder, None).read(fragments)
    for fragment in fragments:
        assert torch.equal(fragment.tensor, whole[fragment.start : fragment.start + fragment.tensor.numel()].double())
    assert torch.equal(read_whole(folder, "weights")["a"], whole)
    with pytest.raises(CheckpointError, match=r"holds no weights/a of shape \[1, "):
        CheckpointTensors(folder, None).read([Fragment("weights/a", (1, *shape), 0, torch.empty(1))])
