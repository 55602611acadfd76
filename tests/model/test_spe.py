"""The whole network: which parts exist, what each view gives, key encoder, 16 bit, empty targets."""

import itertools

import pytest
import torch

from spe_dist.model import attention, dropout
from spe_dist.model.loading import load_encoder
from spe_dist.model.spe import views_only
from spe_dist.model.start.build import build_key_encoder, build_pretraining_model

VOCAB_SIZE = 120
ON_OFF = [combination for combination in itertools.product([True, False], repeat=3) if any(combination)]


def build(config):
    return build_pretraining_model(config, load_encoder(None, config.model, VOCAB_SIZE, seed=0).encoder)


def sum_of_outputs(outputs):
    """A scalar in which every output takes part, with weights that no LayerNorm sums away."""
    tensors = [outputs.tbo_logits_MV, outputs.spo_logits_PO, outputs.pair_queries_BC, outputs.context_queries_BC]
    total = outputs.anchor
    for tensor in tensors:
        if tensor is not None:
            weights = torch.linspace(-1, 1, tensor.shape[1]) if tensor.ndim > 1 else 1.0
            total = total + (tensor.float() * weights).sum()
    return total


@pytest.mark.parametrize(("tbo", "spo", "cspo"), ON_OFF)
@pytest.mark.parametrize("targets", [True, False], ids=["targets", "no targets"])
def test_every_combination_of_objectives_gives_each_parameter_a_gradient(
    small_config, make_batch, tbo, spo, cspo, targets
):
    model = build(small_config(tbo=tbo, spo=spo, cspo=cspo))
    batch = make_batch(4, targets=targets)
    outputs = model(batch)
    assert (outputs.tbo_logits_MV is not None) == tbo
    assert (outputs.spo_logits_PO is not None) == spo
    assert (outputs.pair_queries_BC is not None) == cspo
    assert outputs.anchor.item() == 0.0
    if tbo:
        assert outputs.tbo_logits_MV.shape == (batch.tbo_label_M.shape[0], VOCAB_SIZE)
    if spo:
        assert outputs.spo_logits_PO.shape == (batch.spo_label_P.shape[0], 6)
    if cspo:
        assert outputs.pair_queries_BC.shape == outputs.context_queries_BC.shape == (4, 24)
    sum_of_outputs(outputs).backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


def test_parts_of_switched_off_objectives_are_not_in_the_parameters(small_config):
    def parts(**settings):
        names = [name for name, _ in build(small_config(**settings)).named_parameters()]
        return {".".join(name.split(".")[: 2 if name.startswith("spe.") else 1]) for name in names}

    everything = {"spe.encoder", "spe.span_encoder", "spe.pair_encoder", "spe.contrastive_head", "tbo_head", "spo_head"}
    assert parts() == everything
    assert parts(tbo=False) == everything - {"tbo_head"}
    assert parts(spo=False) == everything - {"spo_head"}
    assert parts(cspo=False) == everything - {"spe.pair_encoder", "spe.contrastive_head"}
    assert parts(spo=False, cspo=False) == {"spe.encoder", "tbo_head"}
    assert parts(contrastive_head=False) == everything - {"spe.contrastive_head"}


def test_the_pooler_is_there_only_where_it_is_read(small_config):
    def has_pooler(**settings):
        return any("pooler" in name for name, _ in build(small_config(**settings)).named_parameters())

    assert has_pooler(cls_source="pooler")
    assert not has_pooler()
    assert not has_pooler(cls_source="pooler", cspo=False)


def test_without_contrastive_head_the_queries_are_the_span_pair_vectors(small_config, make_batch):
    model, batch = build(small_config(contrastive_head=False)).eval(), make_batch(3)
    vectors_QH = model.spe(batch).pair_vectors_QH
    outputs = model(batch)
    assert torch.equal(outputs.pair_queries_BC, vectors_QH[:3])
    assert torch.equal(outputs.context_queries_BC, vectors_QH[3:])


def test_sentences_do_not_influence_each_other(small_config, make_batch):
    """The queries of a batch are those of its sentences one by one."""
    model = build(small_config(spo=False, tbo=False)).eval()
    whole = make_batch(1, seed=5)
    alone = model(whole)
    pair_vectors = model.spe(make_batch(4, seed=5)).pair_vectors_QH
    again = model.spe.project(pair_vectors)
    torch.testing.assert_close(alone.pair_queries_BC[0], again[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("settings", [{}, {"cls_source": "pooler"}, {"cspo": False}, {"spo": False, "cspo": False}])
def test_outputs_and_gradients_are_those_of_a_last_layer_computed_for_all_tokens(
    small_config, make_batch, settings, monkeypatch
):
    """The last layer is computed for [CLS] and the first pieces of words alone, which is all that is read."""
    model, batch = build(small_config(**settings)), make_batch(5, seed=3, extra=2)
    encode, kept = model.spe.encoder.forward, []

    def encode_all(*inputs, kept_N, dropout_keys):
        kept.append(kept_N)
        return encode(*inputs)[kept_N]

    results = []
    for forward in (encode, encode_all):
        monkeypatch.setattr(model.spe.encoder, "forward", forward)
        outputs = model(batch)
        results.append((outputs, torch.autograd.grad(sum_of_outputs(outputs), list(model.parameters()))))
    assert kept[0].shape[0] < batch.n_tokens
    (ours, gradients), (plain, plain_gradients) = results
    for name, expected in vars(plain).items():
        torch.testing.assert_close(getattr(ours, name), expected, rtol=1e-5, atol=1e-5)
    for gradient, expected in zip(gradients, plain_gradients, strict=True):
        assert (gradient - expected).norm() <= 1e-5 * expected.norm() + 1e-6


def test_a_token_boundary_target_is_read_from_the_first_piece_of_its_own_word(small_config, make_batch):
    model, batch = build(small_config(spo=False, cspo=False)).eval(), make_batch(4, seed=1)
    encoder = model.spe.encoder
    states_TD = encoder(batch.piece_ids_T, batch.positions_T, batch.cu_seqlens_Q1, batch.max_seqlen)
    expected = model.tbo_head(states_TD[batch.tbo_first_piece_M], batch.tbo_offset_M)
    torch.testing.assert_close(model(batch).tbo_logits_MV, expected, rtol=1e-5, atol=1e-5)


def test_no_two_rows_of_one_forward_pass_have_the_same_key_of_dropout(small_config, make_batch, monkeypatch):
    """The same key at the same site would drop the same columns in both."""
    seen: dict[tuple[int, int], int] = {}

    def record(x, p, keys_N, site=0):
        for key in keys_N.flatten().tolist():
            seen[site, key] = seen.get((site, key), 0) + 1
        return x

    def record_attention(x, p, keys_R):
        return record(x, p, keys_R.unique())  # rows that only fill up have the key of another one

    monkeypatch.setattr(dropout, "dropout", record)
    monkeypatch.setattr(attention, "dropout", record_attention)
    model, batch = build(small_config(dropout=0.1, layers=3)).train(), make_batch(3, seed=2)
    assert batch.tbo_offset_M.unique().tolist() == [1, 2]  # as low as numbers of layers
    model(batch.with_dropout_keys(0, 0, 0, 3, 1))
    assert max(seen.values()) == 1 and {site for site, _ in seen} == {0, 1, 2}


def test_start_weights_depend_on_the_seed_alone(small_config):
    torch.manual_seed(1)
    first = build(small_config(seed=3)).state_dict()
    torch.manual_seed(2)
    again = build(small_config(seed=3)).state_dict()
    other = build(small_config(seed=4)).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["spo_head.mlp.linear.weight"], other["spo_head.mlp.linear.weight"])


def test_the_key_encoder_is_an_exact_copy_without_gradient_or_dropout(small_config, make_batch):
    config = small_config(dropout=0.3, normalize=False)
    model = build(config).train()
    keys = build_key_encoder(model, config).train()
    theirs = model.spe.state_dict()
    assert {name: value.shape for name, value in keys.state_dict().items()} == {n: v.shape for n, v in theirs.items()}
    assert all(torch.equal(value, theirs[name]) for name, value in keys.state_dict().items())
    assert not any(parameter.requires_grad for parameter in keys.parameters())
    assert next(keys.parameters()).data_ptr() != next(model.spe.parameters()).data_ptr()
    batch = make_batch(4)
    pair_keys_BC, context_keys_BC = keys.keys(batch)
    outputs = model.eval()(batch)
    torch.testing.assert_close(pair_keys_BC, outputs.pair_queries_BC)
    torch.testing.assert_close(context_keys_BC, outputs.context_queries_BC)
    assert not pair_keys_BC.requires_grad and pair_keys_BC.dtype == torch.float32


def test_keys_have_unit_length_where_normalize_is_on_and_noise_where_key_dropout_is(small_config, make_batch):
    config = small_config(dropout=0.3, key_dropout=True)
    keys = build_key_encoder(build(config), config)
    first, again = keys.keys(make_batch(4))[0], keys.keys(make_batch(4))[0]
    torch.testing.assert_close(first.norm(dim=1), torch.ones(4))
    assert not torch.equal(first, again)


def test_sequences_that_serve_spo_only_change_neither_queries_nor_keys(small_config, make_batch):
    config = small_config()
    model = build(config).eval()
    batch = make_batch(3, seed=1, extra=4)
    queries = model(batch).pair_queries_BC
    views = views_only(batch)
    assert views.n_sequences == 6 and views.n_tokens == int(views.cu_seqlens_Q1[-1])
    torch.testing.assert_close(model(views).pair_queries_BC, queries)
    keys = build_key_encoder(model, small_config(normalize=False)).keys(batch)[0]
    torch.testing.assert_close(keys, queries)
    assert queries.shape[0] == 3


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.15), (torch.float16, 0.02)])
def test_the_whole_module_works_in_16_bit(small_config, make_batch, dtype, tolerance):
    config, batch = small_config(cls_source="pooler", pair_activation="gelu"), make_batch(4)
    plain = build(config)(batch)
    model = build(config).to(dtype)
    keys = build_key_encoder(model, config)
    outputs = model(batch)
    sum_of_outputs(outputs).backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())
    assert outputs.tbo_logits_MV.dtype == dtype
    assert (outputs.pair_queries_BC.float() - plain.pair_queries_BC).abs().max() < tolerance * 10
    assert (outputs.spo_logits_PO.float() - plain.spo_logits_PO).abs().max() < tolerance
    assert keys.keys(batch)[0].dtype == torch.float32


def test_heads_without_targets_have_gradients_at_a_loss_scale_beyond_float16(small_config, make_batch):
    """float16 ends at 65,504, and training starts at a scale of 65,536."""
    model = build(small_config(mlm=True)).to(torch.float16)
    outputs = model(make_batch(4, targets=False))
    (outputs.anchor * 65_536).backward()
    for head in (model.tbo_head, model.spo_head, model.mlm_head):
        assert all(torch.equal(parameter.grad, torch.zeros_like(parameter)) for parameter in head.parameters())


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_outputs_and_gradients_on_a_gpu_equal_the_cpus(small_config, make_batch, dtype):
    config, batch = small_config(hidden_size=64), make_batch(6)
    plain, model = build(config), build(config).to("cuda", dtype)
    losses = [sum_of_outputs(plain(batch)), sum_of_outputs(model.to("cuda")(batch.to("cuda")))]
    for loss in losses:
        loss.backward()
    tolerance = {torch.float32: 1e-4, torch.bfloat16: 0.1, torch.float16: 0.02}[dtype]
    theirs = torch.cat([parameter.grad.flatten() for parameter in plain.parameters()])
    ours = torch.cat([parameter.grad.flatten().float().cpu() for parameter in model.parameters()])
    assert (ours - theirs).norm() < tolerance * theirs.norm()


@pytest.mark.gpu
def test_training_with_dropout_runs_on_a_gpu_and_repeats_bit_by_bit(small_config, make_batch):
    model = build(small_config(hidden_size=64, dropout=0.1)).to("cuda", torch.float16).train()
    gradients = []
    for _ in range(2):
        torch.manual_seed(0)
        model.zero_grad()
        sum_of_outputs(model(make_batch(6).to("cuda"))).backward()
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in model.parameters()]))
    assert torch.equal(*gradients)
