"""Products in a chosen type: what is rounded, and that no other product of the process is touched."""

import pytest
import torch

from spe_dist.model.products import add_product, product, product_type, rounded


@pytest.mark.parametrize(("kind", "bits"), [("tf32", 11), ("float16", 11), ("bfloat16", 8)])
def test_factors_keep_the_significant_bits_of_the_type(kind, bits):
    kept = 1 + torch.arange(1 << bits - 1) / (1 << bits - 1)
    assert torch.equal(rounded(kept, kind), kept)
    assert torch.equal(rounded(-kept, kind), -kept)
    finer = kept + 2.0**-bits  # half way: to the even neighbour
    up, down = kept + 2.0 ** (1 - bits), kept
    even = torch.arange(1 << bits - 1) % 2 == 0
    assert torch.equal(rounded(finer, kind), torch.where(even, down, up))
    above = finer + 2.0**-22
    assert torch.equal(rounded(above, kind), up)


def test_sums_are_float32_whatever_the_factors():
    a, b = torch.full((1, 4096), 1.0), torch.full((4096, 1), 1.0)
    for kind in ("float32", "tf32", "float16", "bfloat16"):
        assert product(a, b, kind).item() == 4096 and product(a, b, kind).dtype == torch.float32


def test_auto_is_float32_on_a_cpu_and_tf32_elsewhere():
    assert product_type("auto", torch.device("cpu")) == "float32"
    assert product_type("auto", torch.device("cuda")) == product_type("auto", torch.device("meta")) == "tf32"
    assert product_type("bfloat16", torch.device("cpu")) == "bfloat16"


@pytest.mark.parametrize("set_before", ["highest", "high"])
@pytest.mark.parametrize(("kind", "inside"), [("float32", "ieee"), ("tf32", "tf32")])
def test_the_precision_of_other_products_is_as_before(kind, inside, set_before, monkeypatch):
    seen, multiply = [], torch.mm

    def watched(*factors, **given):
        seen.append(torch.backends.cuda.matmul.fp32_precision)
        return multiply(*factors, **given)

    monkeypatch.setattr(torch, "mm", watched)
    torch.set_float32_matmul_precision(set_before)
    try:
        before = torch.backends.cuda.matmul.fp32_precision
        product(torch.ones(2, 3), torch.ones(3, 2), kind)
        assert torch.backends.cuda.matmul.fp32_precision == before
        assert torch.get_float32_matmul_precision() == set_before
    finally:
        torch.set_float32_matmul_precision("highest")
    assert seen == [inside]


@pytest.mark.parametrize("kind", ["float32", "tf32", "float16", "bfloat16"])
def test_products_of_a_gpu_run_without_its_data(kind):
    a, b = (torch.empty(shape, device="meta") for shape in ((4, 8), (8, 5)))
    assert product(a, b, kind).dtype == torch.float32 and product(a, b, kind).shape == (4, 5)
    add_product(torch.zeros(4, 5, device="meta"), a, b, kind)


@pytest.mark.parametrize("kind", ["float32", "tf32", "float16", "bfloat16"])
def test_a_product_is_added_to_a_sum_in_place(kind):
    generator = torch.Generator().manual_seed(0)
    a, b, total = (torch.randn(shape, generator=generator) for shape in ((4, 8), (8, 5), (4, 5)))
    expected = total + product(a, b, kind)
    add_product(total, a, b, kind)
    torch.testing.assert_close(total, expected)


@pytest.mark.gpu
@pytest.mark.parametrize(("kind", "bits"), [("float32", 22), ("tf32", 9), ("float16", 10), ("bfloat16", 7)])
def test_products_on_a_gpu_err_by_no_more_than_their_rounding(kind, bits):
    a, b = torch.randn(64, 256, device="cuda"), torch.randn(256, 64, device="cuda")
    exact = a.double() @ b.double()
    bound = 2.0**-bits * (a.abs().double() @ b.abs().double())
    assert ((product(a, b, kind).double() - exact).abs() <= bound).all()
