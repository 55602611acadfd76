"""AdamW and its parameter groups."""

import torch
from small_runs import PRETRAINING_NETWORK

from spe_dist.config.loading import resolve
from spe_dist.model.loading import load_encoder
from spe_dist.model.start.build import build_pretraining_model
from spe_dist.training.optimizer import make_adamw, optimizer_device, param_groups

CONFIG = resolve([PRETRAINING_NETWORK])


def test_biases_and_layer_norms_do_not_decay():
    model = build_pretraining_model(CONFIG, load_encoder(None, CONFIG.model, 50, 0).encoder)
    decay, plain = param_groups(model, 0.01)
    assert (decay["weight_decay"], plain["weight_decay"]) == (0.01, 0.0)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert len(decay["params"]) + len(plain["params"]) == len(names)
    for parameter in plain["params"]:
        assert names[id(parameter)].endswith(".bias") or "norm" in names[id(parameter)].lower()
    for parameter in decay["params"]:
        assert names[id(parameter)].endswith(".weight") and "norm" not in names[id(parameter)].lower()


def test_fused_adamw_equals_the_formula():
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(50))
    plain, moment, square = weight.detach().double().clone(), 0.0, 0.0
    optimizer = make_adamw([{"params": [weight], "weight_decay": 0.01}], CONFIG, "cpu")
    settings = CONFIG.optimizer
    for step in range(1, 6):
        gradient = 1e-5 * torch.randn(50)  # so small that epsilon counts
        weight.grad = gradient
        optimizer.step()
        gradient = gradient.double()
        plain -= settings.learning_rate * 0.01 * plain
        moment = settings.adam_beta1 * moment + (1 - settings.adam_beta1) * gradient
        square = settings.adam_beta2 * square + (1 - settings.adam_beta2) * gradient**2
        corrected = (square / (1 - settings.adam_beta2**step)) ** 0.5 + settings.adam_eps
        plain -= settings.learning_rate * moment / (1 - settings.adam_beta1**step) / corrected
    torch.testing.assert_close(weight.detach().double(), plain, rtol=0, atol=1e-6)


def test_adamw_steps_parameters_that_replaced_those_it_was_built_with():
    """As DeepSpeed's ZeRO does: flat float32 partitions in place of a group's parameters."""
    optimizer = make_adamw([{"params": [torch.nn.Parameter(torch.zeros(3, 4).bfloat16())]}], CONFIG, "cpu")
    flat = torch.zeros(6, requires_grad=True)
    optimizer.param_groups[0]["params"] = [flat]
    flat.grad = torch.ones(6)
    optimizer.step()
    assert (flat < 0).all() and optimizer.state[flat]["exp_avg"].dtype == torch.float32


def test_the_optimizer_steps_on_the_cpu_where_it_is_offloaded():
    gpu = torch.device("cuda", 1)
    for zero, device in (
        ({"stage": 2}, gpu),
        ({"stage": 2, "offload_optimizer": None}, gpu),
        ({"stage": 2, "offload_optimizer": {"device": "none"}}, gpu),
        ({"stage": 2, "offload_optimizer": {"device": "cpu"}}, torch.device("cpu")),
    ):
        assert optimizer_device({"zero_optimization": zero}, gpu) == device
