"""Prepacked layers against the plain ones."""

import copy
import pickle

import pytest
import torch

from spe_dist.config.pretraining import ModelConfig
from spe_dist.model import prepacked
from spe_dist.model.loading import load_encoder
from spe_dist.model.prepacked import prepack


def states(encoder, batch):
    with torch.inference_mode():
        return encoder(batch.piece_ids_T, batch.positions_T, batch.cu_seqlens_Q1, batch.max_seqlen).float()


@pytest.fixture(params=["gelu", "relu"])
def encoder(request, bert_folder):
    return load_encoder(str(bert_folder(hidden_act=request.param)), ModelConfig(), 0, seed=0).encoder.eval()


def test_prepacked_layers_give_the_states_of_plain_ones_and_keep_their_parameters(encoder, make_batch):
    exact = copy.deepcopy(encoder)
    plain = copy.deepcopy(encoder).to(torch.bfloat16)
    fast = copy.deepcopy(plain)
    if not prepack(fast):
        pytest.skip("needs a CPU whose products oneDNN computes in bfloat16")
    assert {n: p.dtype for n, p in fast.named_parameters()} == {n: p.dtype for n, p in plain.named_parameters()}
    assert all(torch.equal(p, fast.state_dict()[n]) for n, p in plain.state_dict().items())
    for n_sentences in (1, 6):
        batch = make_batch(n_sentences)
        wanted, found, before = states(exact, batch), states(fast, batch), states(plain, batch)
        assert (found - wanted).norm() < 1.2 * (before - wanted).norm() < 0.03 * wanted.norm()


def test_copies_lay_out_weights_of_their_own(encoder, make_batch):
    if not prepack(encoder.to(torch.bfloat16)):
        pytest.skip("needs a CPU whose products oneDNN computes in bfloat16")
    batch = make_batch(3)
    for copied in (copy.deepcopy(encoder), pickle.loads(pickle.dumps(encoder))):
        assert torch.equal(states(copied, batch), states(encoder, batch))


def test_what_cannot_be_prepacked_stays_as_it_is(encoder, monkeypatch):
    before = [type(module) for module in encoder.modules()]
    assert not prepack(encoder)  # float32
    monkeypatch.setattr(prepacked, "_has_operators", lambda: False)
    assert not prepack(encoder.to(torch.bfloat16))
    assert [type(module) for module in encoder.modules()] == before
