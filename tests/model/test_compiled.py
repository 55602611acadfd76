"""Compiled layers and heads against the same model uncompiled, and in how many versions they are compiled."""

import pytest
import torch
import torch._dynamo
from torch._dynamo.utils import counters
from torch.utils._pytree import tree_leaves

from spe_dist.errors import ConfigError
from spe_dist.model.dropout import Dropout, combine
from spe_dist.model.kernels import check_compile, compile_model, compiled
from spe_dist.model.loading import load_encoder
from spe_dist.model.start.build import build_key_encoder, build_pretraining_model
from spe_dist.pretraining.objectives import prediction_terms
from spe_dist.training.terms import cross_entropy

VOCAB_SIZE = 120
# Whatever the batches: the last layer and another, before and behind attention by groups and the residual connection;
# span MLP, span pair encoder, contrastive head; all of these with gradient and without; the other heads; the losses.
MOST_GRAPHS = 21
MOST_GRAPHS_WITH_PACKED_ATTENTION = 12
LONG = [pytest.mark.slow, pytest.mark.long]


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


@pytest.fixture
def backend(monkeypatch):
    """backend("eager"): what `torch.compile` does with its graphs; "eager" runs them as they are."""

    def choose(name):
        real = torch.compile
        monkeypatch.setattr(torch, "compile", lambda *args, **given: real(*args, **{**given, "backend": name}))

    return choose


def build(config, product_dtype=None):
    """(queries' model, keys' model) with the same weights each time."""
    encoder = load_encoder(None, config.model, VOCAB_SIZE, seed=0).encoder
    encoder.product_dtype = product_dtype
    model = build_pretraining_model(config, encoder)
    return model, build_key_encoder(model, config)


def losses(model, keys, batch, score=cross_entropy):
    """TBO, SPO and a similarity of queries and keys."""
    outputs = model(batch)
    terms = prediction_terms(outputs, batch, score)
    pair_keys_BC, context_keys_BC = keys.keys(batch)
    pairs = (outputs.pair_queries_BC.float(), context_keys_BC), (outputs.context_queries_BC.float(), pair_keys_BC)
    similarity = sum((queries * keys).mean() for queries, keys in pairs)
    return torch.stack([terms["tbo"].loss_sum, terms["spo"].loss_sum, similarity + outputs.anchor])


def train(model, keys, batch, score=cross_entropy):
    """(losses, all gradients in one)."""
    model.zero_grad()
    found = losses(model, keys, batch, score)
    found.sum().backward()
    return found.detach(), torch.cat([p.grad.float().flatten() for p in model.parameters()])


def assert_near(ours, plain, tolerance):
    for mine, theirs in zip(ours, plain, strict=True):
        assert (mine - theirs).norm() <= tolerance * theirs.norm()


CASES = {
    "float32": (torch.float32, None, 1e-5),
    "bfloat16": (torch.bfloat16, None, 2e-2),
    "mixed": (torch.float32, torch.bfloat16, 2e-2),
}


@pytest.mark.parametrize(
    ("name", "case"),
    [("eager", "float32"), *(pytest.param("inductor", case, marks=LONG) for case in CASES)],
)
def test_compiled_parts_give_losses_and_gradients_of_the_uncompiled_in_few_versions(
    small_config, make_batch, backend, name, case
):
    backend(name)
    dtype, product_dtype, tolerance = CASES[case]
    plain = [part.to(dtype) for part in build(small_config(), product_dtype)]
    ours = [part.to(dtype) for part in build(small_config(compile=True), product_dtype)]
    score = compiled(cross_entropy)
    sizes = [(4, 0), (9, 1), (2, 2), (13, 3), (5, 4), (7, 5)]
    for n_sentences, seed in sizes:
        batch = make_batch(n_sentences, seed)
        assert_near(train(*ours, batch, score), train(*plain, batch), tolerance)
        if seed == 1:  # sizes of the first batch may be equal by chance
            versions = counters["stats"]["unique_graphs"]
    assert versions == counters["stats"]["unique_graphs"] <= MOST_GRAPHS


@pytest.mark.parametrize("targets", [True, False])
def test_filler_changes_neither_outputs_nor_gradients(small_config, make_batch, targets):
    plain, filled = build(small_config()), build(small_config())
    for part in filled:
        (part.spe if hasattr(part, "spe") else part).encoder.fills_up = True
    for n_sentences in (1, 4, 9):
        batch = make_batch(n_sentences, seed=n_sentences, targets=targets)
        ours, theirs = (parts[0](batch) for parts in (filled, plain))
        for mine, other in zip(tree_leaves(vars(ours)), tree_leaves(vars(theirs)), strict=True):
            assert mine is other is None or mine.shape == other.shape
        assert_near(train(*filled, batch), train(*plain, batch), 1e-5)


def test_filler_leaves_few_sizes_to_every_compiled_part(small_config, make_batch):
    model, _ = build(small_config())
    model.spe.encoder.fills_up = True
    sizes: dict[str, set] = {}
    watched = {
        "layer": model.spe.encoder.encoder.layer[0],
        "last layer": model.spe.encoder.encoder.layer[1].output,
        "span convolution": model.spe.span_encoder.conv_layers[0],
        "token boundary head": model.tbo_head,
        "permutation head": model.spo_head,
    }
    for name, module in watched.items():
        seen = sizes.setdefault(name, set())
        module.register_forward_hook(lambda module, inputs, output, seen=seen: seen.add(output.shape[0]))
    tokens = set()
    for seed in range(24):
        batch = make_batch(32, seed)
        tokens.add(batch.n_tokens)
        model(batch)
    assert len(tokens) > 15
    assert {name: len(seen) for name, seen in sizes.items() if len(seen) > 5} == {}


def test_filler_sequences_are_no_longer_than_others(small_config, make_batch, monkeypatch):
    model, _ = build(small_config())
    model.spe.encoder.fills_up = True
    seen = []
    model.spe.encoder.encoder.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[1]))
    for seed in range(8):
        batch = make_batch(24, seed)
        model(batch)
        lengths = seen[-1].cu_seqlens_Q1.diff()
        assert lengths.shape[0] == batch.n_sequences + batch.n_sequences // 8
        assert lengths.min() > 0 and lengths.max() == seen[-1].max_seqlen == batch.max_seqlen
        assert torch.equal(seen[-1].cu_seqlens_Q1[: batch.n_sequences + 1], batch.cu_seqlens_Q1)


def test_on_a_gpu_whole_layers_are_one_graph_with_packed_attention_inside(small_config, make_batch, backend):
    """On torch's device without data, which takes the way of a GPU."""
    backend("eager")
    model, keys = (part.to("meta", torch.float16) for part in build(small_config(compile=True, dropout=0.1)))
    model.train()
    for n_sentences in (3, 8, 5):
        batch = make_batch(n_sentences, n_sentences).to("meta")
        model.zero_grad()
        losses(model, keys, batch).sum().backward()
        assert all(parameter.grad is not None for parameter in model.parameters())
    assert not counters["graph_break"]
    assert counters["stats"]["unique_graphs"] <= MOST_GRAPHS_WITH_PACKED_ATTENTION


def test_compiled_parts_keep_their_parameters_names_and_copies_are_their_own(small_config, make_batch, backend):
    backend("eager")
    plain, ours = build(small_config())[0], build(small_config(compile=True))
    model, keys = ours
    assert list(model.state_dict()) == list(plain.state_dict())
    assert list(keys.state_dict()) == list(plain.spe.state_dict())
    batch = make_batch(3)
    before = keys.keys(batch)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert all(torch.equal(now, then) for now, then in zip(keys.keys(batch), before, strict=True))


@pytest.mark.slow
def test_compiled_dropout_drops_its_share_scales_the_rest_and_follows_the_seed():
    layer = Dropout(0.1).train()
    run = compiled(lambda x: layer(x) * 1.0)
    x = torch.ones(400, 500, requires_grad=True)
    outputs = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        outputs.append(run(x))
    assert torch.equal(outputs[0], outputs[1]) and not torch.equal(outputs[0], outputs[2])
    kept = outputs[2] != 0
    assert abs(kept.float().mean() - 0.9) < 5 * (0.09 / x.numel()) ** 0.5
    assert kept.float().mean(1).std() < 2 * (0.09 / 500) ** 0.5  # rows are drawn independently
    torch.testing.assert_close(outputs[2][kept], torch.full((int(kept.sum()),), 1 / 0.9))
    (gradient,) = torch.autograd.grad(outputs[2].sum(), x)
    torch.testing.assert_close(gradient, outputs[2].detach())


@pytest.mark.slow
def test_compiled_dropout_by_keys_is_that_of_uncompiled_one():
    layer = Dropout(0.1, site=2).train()
    run = compiled(lambda x, keys: layer(x, keys) * 1.0)
    for n_rows in (40, 57):
        x, keys = torch.randn(n_rows, 301), combine(torch.arange(n_rows, dtype=torch.int32), 5)
        assert torch.equal(run(x, keys), layer(x, keys))


def test_compiled_losses_take_any_number_of_targets(backend):
    backend("eager")
    score = compiled(cross_entropy)
    for n_targets in (5, 0, 1, 9):
        logits, labels = torch.randn(n_targets, 7), torch.arange(n_targets) % 7
        torch.testing.assert_close(score(logits, labels), cross_entropy(logits, labels))


def test_without_a_compiler_the_run_ends_in_one_line_before_it_starts(monkeypatch):
    from torch._inductor import config
    from torch._inductor.cpp_builder import cpp_compiler_search

    cpp_compiler_search.cache_clear()
    monkeypatch.setattr(config.cpp, "cxx", (None, "no-such-compiler"))
    with pytest.raises(ConfigError, match=r"compile=true.*no-such-compiler.*g\+\+.*compile=false") as found:
        check_compile(torch.device("cpu"), zero_stage=1)
    assert "\n" not in str(found.value)
    cpp_compiler_search.cache_clear()


def test_stage_3_is_refused_with_the_reason():
    with pytest.raises(ConfigError, match=r"compile=true.*stage 3.*stage 1 or 2"):
        check_compile(torch.device("cpu"), zero_stage=3)


def test_a_model_without_heads_compiles_what_it_has(small_config, make_batch, backend):
    backend("eager")
    config = small_config(tbo=False, spo=False, contrastive_head=False, cls_source="pooler")
    (plain, _), (ours, _) = build(config), build(config)
    compile_model(ours.spe)
    batch = make_batch(3)
    torch.testing.assert_close(ours(batch).pair_queries_BC, plain(batch).pair_queries_BC, rtol=1e-5, atol=1e-5)
    assert counters["stats"]["unique_graphs"] > 0
