import pytest
import torch
from thread_ranks import run_threads

from spe_dist.errors import DivergenceError
from spe_dist.moco import check_equal, checksums
from spe_dist.moco.checksums import ROW_NUMEL_CPU, checksum


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.bool], ids=str
)
def test_every_single_flipped_bit_changes_the_checksum(dtype):
    tensor = torch.randn(5).to(dtype)
    before = int(checksum(tensor))
    raw = tensor.view(torch.uint8)
    for byte in range(raw.numel()):
        for bit in range(8):
            raw[byte] ^= 1 << bit
            assert int(checksum(tensor)) != before
            raw[byte] ^= 1 << bit
    assert int(checksum(tensor)) == before


@pytest.mark.parametrize("place", [0, ROW_NUMEL_CPU - 1, ROW_NUMEL_CPU, 3 * ROW_NUMEL_CPU + 4])
def test_a_flipped_bit_is_found_anywhere_in_a_long_tensor(place):
    tensor = torch.randn(3 * ROW_NUMEL_CPU + 5)
    before = int(checksum(tensor))
    tensor.view(torch.int32)[place] ^= 1
    assert int(checksum(tensor)) != before


def test_exchanged_numbers_and_exchanged_rows_change_the_checksum():
    tensor = torch.arange(4 * ROW_NUMEL_CPU, dtype=torch.float32)
    rows = tensor.view(4, -1)
    assert int(checksum(tensor)) != int(checksum(rows[[1, 0, 2, 3]]))
    assert int(checksum(tensor[:4])) != int(checksum(tensor[[0, 2, 1, 3]]))


def test_zero_and_negative_zero_differ_and_strides_do_not_matter():
    assert checksums({"a": torch.zeros(1)}) != checksums({"a": -torch.zeros(1)})
    matrix = torch.randn(3, 4)
    assert checksums({"a": matrix.t()}) == checksums({"a": matrix.t().contiguous()})
    assert checksums({"a": torch.zeros(0)}) and checksums({"a": torch.zeros(())}) and checksums({}) == {}


def test_a_difference_stops_every_rank_and_names_tensor_and_ranks():
    def rank(collectives):
        tensors = {"layer.weight": torch.ones(8), "ids_K": torch.arange(8)}
        check_equal(collectives, tensors)
        if collectives.rank == 2:
            tensors["ids_K"][5] = 77
        with pytest.raises(DivergenceError) as error:
            check_equal(collectives, tensors)
        return str(error.value)

    for message in run_threads(3, rank):
        assert "ids_K (ranks 0, 1 against rank 2)" in message and "layer.weight" not in message


def test_a_tensor_that_a_rank_lacks_is_a_difference():
    def rank(collectives):
        tensors = {"a": torch.ones(3), "b": torch.ones(3)}
        if collectives.rank == 0:
            del tensors["b"]
        with pytest.raises(DivergenceError, match=r"1 of 2 tensors differ between ranks: b \(rank"):
            check_equal(collectives, tensors)

    run_threads(2, rank)
