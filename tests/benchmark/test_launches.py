"""What counts as a launch and as a wait for the device."""

import pytest
import torch

from spe_dist.benchmark.launches import LaunchCounter

META = torch.device("meta")


def count(function, *inputs, device=META):
    """(launches, waits) of a call, by name; operations that fail on `meta` because they have no data are counted."""
    with LaunchCounter(device) as counter:
        try:
            function(*inputs)
        except (NotImplementedError, RuntimeError):
            assert counter.waits
    return ({name: n for (_, name), n in c.items()} for c in (counter.launches, counter.waits))


@pytest.fixture
def x():
    return torch.empty(6, 4, device=META)


def test_views_and_empty_tensors_launch_nothing(x):
    def look():
        x.t()[1:].unflatten(1, (2, 3)).expand(2, -1, -1, -1).detach()
        x.new_empty(7).view(7, 1)
        torch.cat([x[:0], x[:0]])

    launches, waits = count(look)
    assert launches == {} and waits == {}


def test_every_other_operation_launches_once_backward_too(x):
    weight = torch.empty(3, 4, device=META, requires_grad=True)

    def train():
        (x @ weight.t()).relu_().sum().backward()

    launches, waits = count(train)
    assert launches == {"mm": 2, "relu_": 1, "sum": 1, "ones_like": 1, "threshold_backward": 1}
    assert waits == {}


def test_work_of_the_host_beside_the_device_is_not_counted(x):
    launches, waits = count(lambda: torch.nonzero(torch.ones(3)) + 1)
    assert launches == {} and waits == {}


WAITS = {
    "a number read": ("_local_scalar_dense", lambda x: float(x.sum())),
    "a truth read": ("_local_scalar_dense", lambda x: bool((x > 0).any())),
    "a slice up to a tensor": ("_local_scalar_dense", lambda x: x[: x.sum().long()]),
    "places of what is not zero": ("nonzero", torch.nonzero),
    "a mask as index": ("index", lambda x: x[x > 0]),
    "a mask assigned": ("index_put_", lambda x: x.index_put_([x > 0], x.sum())),
    "a list as index": ("__getitem__", lambda x: x[:, [0, 2]]),
    "distinct values": ("_unique2", lambda x: torch.unique(x, return_inverse=True)),
    "membership": ("isin", lambda x: torch.isin(x, x[0])),
    "how often each is there": ("bincount", lambda x: torch.bincount(x[0].long())),
    "repeats of unknown number": ("repeat_interleave", lambda x: torch.repeat_interleave(x[0], x[0].long())),
    "equality of tensors": ("equal", lambda x: torch.equal(x, x)),
    "a copy to the host": ("_to_copy", lambda x: x.to("cpu")),
    "a copy to the host that need not wait": ("_to_copy", lambda x: x.to("cpu", non_blocking=True)),
    "a copy from the host": ("_to_copy", lambda x: torch.ones(3).to(META)),
    "a copy into a tensor": ("copy_", lambda x: x[0].copy_(torch.ones(4))),
    "a tensor made of numbers": ("tensor", lambda x: torch.tensor([1, 2], device=META)),
}


@pytest.mark.parametrize("case", WAITS)
def test_what_the_host_needs_to_know_makes_it_wait(case, x):
    name, function = WAITS[case]
    _, waits = count(function, x)
    assert waits == {name: 1}


FREE = {
    "an index": lambda x: x[torch.empty(5, dtype=torch.int64, device=META)],
    "a mask applied": lambda x: x.masked_fill(x > 0, 0.0),
    "repeats of a known number": lambda x: torch.repeat_interleave(x[0], x[0].long(), output_size=9),
    "a copy from pinned memory": lambda x: torch.ones(3).to(META, non_blocking=True),
    "a copy on the device": lambda x: x.to(torch.float16, copy=True),
    "numbers in a row": lambda x: torch.arange(7, device=META),
    "a number of the host": lambda x: x + 2.5,
    "sorting and searching": lambda x: torch.searchsorted(x.sort()[0], x),
}


@pytest.mark.parametrize("case", FREE)
def test_what_the_device_does_by_itself_makes_nobody_wait(case, x):
    launches, waits = count(FREE[case], x)
    assert launches and waits == {}


def test_waits_are_found_where_the_device_has_data_too():
    _, waits = count(lambda: torch.ones(4)[torch.ones(4) > 0].sum().item(), device=torch.device("cpu"))
    assert waits == {"index": 1, "_local_scalar_dense": 1}


def test_phases_part_the_counts(x):
    with LaunchCounter(META) as counter, counter.phase("outer"):
        x.sum()
        with counter.phase("inner"):
            x.exp().sum()
        x.sum()
    assert counter.launches_by_phase() == {"outer": 2, "inner": 2}
    assert counter.launches["inner", "exp"] == 1
