"""Choice of fused kernels: apex found, refused, explained."""

import importlib
import sys

import pytest
import torch
from project import ROOT

from spe_dist.errors import ConfigError
from spe_dist.model import kernels
from spe_dist.model.kernels import choose_kernels, find_apex, layer_norm_class
from spe_dist.model.loading import load_encoder
from spe_dist.model.start.build import build_pretraining_model
from spe_dist.training.optimizer import make_adamw, param_groups


@pytest.fixture
def install(tmp_path, monkeypatch):
    """install({"apex/__init__.py": ""}): puts modules first on the path, and only for the test."""

    def write(files):
        for name, text in files.items():
            file = tmp_path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        importlib.invalidate_caches()

    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    yield write
    for name in set(sys.modules) - before:
        if name.partition(".")[0] in ("apex", "amp_C", "fused_layer_norm_cuda"):
            del sys.modules[name]


def test_pips_unrelated_apex_is_noted_and_refused_where_it_is_asked_for(install, small_config):
    install({"apex/__init__.py": "", "apex/lib/__init__.py": ""})
    assert find_apex().kind == "unrelated"
    with pytest.raises(ConfigError, match=r"not NVIDIA's.*NVIDIA/apex"):
        layer_norm_class("apex")
    assert any("not NVIDIA's" in row.why for row in choose_kernels(small_config()))


def test_an_apex_that_fails_to_import_is_no_reason_to_fail(install):
    install({"apex/__init__.py": "raise RuntimeError('no pyramid')"})
    assert find_apex().kind == "unrelated"
    assert layer_norm_class("auto") is torch.nn.LayerNorm


def test_nvidias_apex_without_its_extensions_is_refused(install):
    install({"apex/__init__.py": "", "apex/normalization/__init__.py": ""})
    assert find_apex().kind == "not built"
    with pytest.raises(ConfigError, match="fused_layer_norm_cuda"):
        layer_norm_class("apex")


@pytest.fixture
def nvidias_apex(install, monkeypatch):
    """NVIDIA's apex, built, in a plain form with its signatures."""
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "helpers" / "apex_stand_in"))
    assert find_apex().usable


def test_nvidias_apex_is_used_on_a_gpu_only(nvidias_apex, monkeypatch):
    with pytest.raises(ConfigError, match="CPU"):
        kernels.use_apex("apex", torch.device("cpu"))
    monkeypatch.setattr(kernels, "default_device", lambda: torch.device("cuda"))
    assert layer_norm_class("apex").__name__ == "FusedLayerNorm"
    assert layer_norm_class("auto") is torch.nn.LayerNorm


def test_every_part_names_its_kernel_and_the_reason(small_config):
    rows = {row.part: row for row in choose_kernels(small_config(), "cpu")}
    assert {"attention", "LayerNorm", "bias-GELU", "AdamW"} <= set(rows)
    assert all(row.kernel and row.why for row in rows.values())


def test_apex_trains_as_torch_does(nvidias_apex, small_config, make_batch, monkeypatch):
    """Built with its LayerNorm and stepped by its AdamW: the same names of parameters, gradients and weights."""
    monkeypatch.setattr(kernels, "default_device", lambda: torch.device("cuda"))
    trained = {}
    for kernel, norm, adamw in (("apex", "FusedLayerNorm", "FusedAdam"), ("torch", "LayerNorm", "AdamW")):
        config = small_config(kernels=kernel)
        model = build_pretraining_model(config, load_encoder(None, config.model, 120, 0, kernel).encoder)
        assert {type(m).__name__ for m in model.modules() if "Norm" in type(m).__name__} == {norm}
        outputs = model(make_batch())
        (outputs.pair_queries_BC.pow(2).sum() + outputs.tbo_logits_MV.logsumexp(1).sum()).backward()
        gradients = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
        optimizer = make_adamw(param_groups(model, 0.1), config, "cuda" if kernel == "apex" else "cpu")
        assert type(optimizer).__name__ == adamw
        generator = torch.Generator().manual_seed(0)
        for _ in range(3):
            for parameter in model.parameters():
                parameter.grad = torch.randn(parameter.shape, generator=generator)
            for group in optimizer.param_groups:
                group["lr"] = 0.01
            optimizer.step()
        trained[kernel] = gradients, model.state_dict()
    for ours, torchs in zip(*trained.values(), strict=True):
        assert ours.keys() == torchs.keys()
        for name, value in torchs.items():
            torch.testing.assert_close(ours[name], value, rtol=1e-5, atol=1e-6)


def test_apexs_layer_norm_stays_in_float32_under_autocast(nvidias_apex, monkeypatch):
    """As torch's on a GPU, so that mixed precision has 16 bits in matrix products alone."""
    monkeypatch.setattr(kernels, "default_device", lambda: torch.device("cuda"))
    x, norm = torch.randn(5, 16, dtype=torch.bfloat16), layer_norm_class("apex")(16, eps=1e-12)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        normed = norm(x)
    torch.testing.assert_close(normed, torch.nn.functional.layer_norm(x.float(), (16,), eps=1e-12))


def test_a_run_with_apex_names_its_kernels(nvidias_apex, small_config):
    chosen = {row.part: row.kernel for row in choose_kernels(small_config(kernels="apex"), "cuda", torch.float32)}
    assert chosen["LayerNorm"] == "apex FusedLayerNorm" and chosen["AdamW"] == "apex FusedAdam"


@pytest.mark.gpu
def test_apex_kernels_equal_torchs(small_config):
    if not find_apex().usable:
        pytest.skip(find_apex().detail)
    x = torch.randn(64, 32, device="cuda")
    ours, plain = layer_norm_class("apex")(32, eps=1e-12).cuda()(x), torch.nn.LayerNorm(32, eps=1e-12).cuda()(x)
    torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-5)
    weights = [torch.nn.Parameter(torch.ones(100, device="cuda")) for _ in range(2)]
    for kernel, weight in zip(("apex", "torch"), weights, strict=True):
        optimizer = make_adamw([{"params": [weight]}], small_config(kernels=kernel), "cuda")
        for step in range(5):
            weight.grad = torch.randn(100, device="cuda", generator=torch.Generator("cuda").manual_seed(step))
            optimizer.step()
    torch.testing.assert_close(weights[0], weights[1], rtol=0, atol=1e-6)
