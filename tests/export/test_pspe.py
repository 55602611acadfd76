"""The predecessor's checkpoints, imported: our modules give its numbers."""

from __future__ import annotations

from itertools import accumulate

import pytest
import torch

from spe_dist.data.batches.packed import PackedBatch
from spe_dist.errors import CheckpointError, ConfigError
from spe_dist.export import SpanPairEncoder, load_pretraining_model
from spe_dist.export.folder import write_folder
from spe_dist.export.loading import pretraining_model_of, spe_model_of
from spe_dist.export.pspe import read_pspe
from spe_dist.pretraining.objectives import span_permutation, token_boundary

TOLERANCE = {"atol": 1e-5, "rtol": 1e-5}


@pytest.fixture
def write(tmp_path):
    def save(content, **options):
        file = tmp_path / "pretrained_model"
        torch.save(content, file, **options)
        return file

    return save


def pack(views) -> PackedBatch:
    """The views of one kind as a packed batch, as if they were all the sequences there are."""
    lengths = [len(view.pieces) for view in views]
    starts = [0, *accumulate(lengths)]
    words, tbo, spo, widths = [], [], [], []
    for number, view in enumerate(views):
        words += [starts[number] + first for first in view.first_pieces]
        widths += [end - start for start, end in view.spans]
        tbo += [(starts[number] + first, offset, label) for first, offset, label in view.masked]
        spo += [(5 * number + index, label) for index, label in view.permuted]
    tbo_M3, spo_P2 = torch.tensor(tbo).view(-1, 3), torch.tensor(spo).view(-1, 2)
    return PackedBatch(
        sentence_ids_B=torch.arange(len(views)),
        text_ids_B=torch.arange(len(views)),
        piece_ids_T=torch.tensor([piece for view in views for piece in view.pieces]),
        positions_T=torch.cat([torch.arange(n) for n in lengths]),
        cu_seqlens_Q1=torch.tensor(starts, dtype=torch.int32),
        first_piece_W=torch.tensor(words),
        span_borders_S1=torch.tensor([0, *accumulate(widths)]),
        tbo_first_piece_M=tbo_M3[:, 0].contiguous(),
        tbo_offset_M=tbo_M3[:, 1],
        tbo_label_M=tbo_M3[:, 2],
        spo_span_P=spo_P2[:, 0],
        spo_label_P=spo_P2[:, 1],
        max_seqlen=max(lengths),
        view_tokens=starts[-1],
        view_words=len(words),
    )


@pytest.mark.parametrize("encoder", ["query", "key"])
@pytest.mark.parametrize("decoder_rows", [90, 120])
def test_imported_model_gives_the_numbers_of_the_predecessor(predecessor, write, encoder, decoder_rows):
    sizes = predecessor.Sizes(decoder_rows=decoder_rows)
    checkpoint = predecessor.random_checkpoint(sizes)
    prefix = "span_pair_encoder." if encoder == "query" else "momentum_span_pair_encoder."
    weights = {k.removeprefix(prefix): v for k, v in checkpoint.items() if k.startswith(prefix)}
    model = pretraining_model_of(read_pspe(write(checkpoint), encoder, attention_heads=sizes.heads))
    for seed in (1, 2):  # span-pair view, context view
        views = predecessor.random_views(sizes, seed)
        theirs, batch = predecessor.forward(weights, sizes, views), pack(views)
        with torch.no_grad():
            ours = model.spe(batch)
            queries = model.spe.project(ours.pair_vectors_QH)
            tbo = token_boundary(model(batch).tbo_logits_MV, batch.tbo_label_M)
            spo = span_permutation(model.spo_head(ours.span_vectors_SH[batch.spo_span_P]), batch.spo_label_P)
        word_states = torch.cat(theirs.states)[batch.first_piece_W]
        torch.testing.assert_close(ours.word_states_WD, word_states, **TOLERANCE)
        torch.testing.assert_close(ours.span_vectors_SH, theirs.span_vectors.flatten(0, 1), **TOLERANCE)
        torch.testing.assert_close(ours.pair_vectors_QH, theirs.pair_vectors, **TOLERANCE)
        torch.testing.assert_close(queries, theirs.queries, **TOLERANCE)
        assert (tbo.count, spo.count) == (theirs.tbo_count, theirs.spo_count) and tbo.count and spo.count
        assert tbo.loss_sum.item() == pytest.approx(theirs.tbo_sum, rel=1e-5)
        assert spo.loss_sum.item() == pytest.approx(theirs.spo_sum, rel=1e-5)


def test_kernels_are_flipped_and_not_only_copied(predecessor, write):
    sizes = predecessor.Sizes()
    checkpoint = predecessor.random_checkpoint(sizes)
    imported = spe_model_of(read_pspe(write(checkpoint), attention_heads=4)).span_encoder.conv_layers
    for index in range(3):
        theirs = checkpoint[f"span_pair_encoder.entity_span_extractor.cnn_encoder.conv_layer_{index}.weight"]
        assert torch.equal(imported[index].weight, theirs.flip(2))
        assert not torch.equal(imported[index].weight, theirs)


@pytest.mark.parametrize("wrapped", ["plain", "model", "module", "model of module", "old torch", "old BERT names"])
def test_every_usual_form_of_the_file_is_read_alike(predecessor, write, wrapped):
    checkpoint = predecessor.random_checkpoint(predecessor.Sizes())
    expected = read_pspe(write(checkpoint), attention_heads=4)
    content, options = dict(checkpoint), {}
    content["span_pair_encoder.bert_encoder.bert_model.embeddings.position_ids"] = torch.arange(48)[None]
    content["span_pair_queue"], content["queue_ptr"] = torch.zeros(4, 32), torch.zeros(1)
    if "module" in wrapped:
        content = {f"module.{name}": tensor for name, tensor in content.items()}
    if "model" in wrapped:
        content = {"model": content, "step": 1000}
    if wrapped == "old torch":
        options = {"_use_new_zipfile_serialization": False}
    if wrapped == "old BERT names":
        content = {
            n.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): t
            for n, t in content.items()
        }
    got = read_pspe(write(content, **options), attention_heads=4)
    assert got.settings == expected.settings and got.weights.keys() == expected.weights.keys()
    assert all(torch.equal(got.weights[name], expected.weights[name]) for name in expected.weights)


def test_sizes_come_from_the_tensors(predecessor, write):
    sizes = predecessor.Sizes(
        hidden=128, layers=3, heads=2, kernels=(1, 5), channels=3, span=10, offset_rows=4, positions=20
    )
    parts = read_pspe(write(predecessor.random_checkpoint(sizes)))
    assert parts.bert_config["num_attention_heads"] == 2, "hidden size / 64"
    assert parts.bert_config["num_hidden_layers"] == 3 and parts.bert_config["max_position_embeddings"] == 20
    model = parts.config.model
    assert (model.cnn_kernels, model.cnn_channels, model.span_size) == ((1, 5), 3, 10)
    assert (model.contrastive_size, model.tbo_offset_rows, model.attention_size) == (128, 4, 20)
    assert (model.cls_source, model.pair_activation) == ("pooler", "gelu")
    pretraining_model_of(parts)


@pytest.mark.parametrize(
    ("gone", "objectives"),
    [
        (("masked_token", "global_position"), {"tbo": False}),
        (("entity_span_mlp", "entity_span_decoder"), {"spo": False}),
        (("mlp_head",), {"contrastive_head": False}),
        (("mlp_head", "attention_encoder", "position_embedding"), {"cspo": False}),
    ],
)
def test_a_checkpoint_without_some_parts_gives_a_model_without_them(predecessor, write, gone, objectives):
    checkpoint = predecessor.random_checkpoint(predecessor.Sizes())
    kept = {k: v for k, v in checkpoint.items() if not k.split(".", 1)[1].startswith(gone)}
    parts = read_pspe(write(kept), attention_heads=4)
    assert {name: parts.settings[name] for name in objectives} == objectives
    pretraining_model_of(parts)


def test_export_of_an_import_serves_as_any_other(predecessor, checkpoints, write, tmp_path):
    sizes = predecessor.Sizes(vocabulary=len(checkpoints.PIECES), decoder_rows=len(checkpoints.PIECES))
    vocabulary = tmp_path / "vocab.txt"
    vocabulary.write_text("\n".join(checkpoints.PIECES) + "\n")
    checkpoint = predecessor.random_checkpoint(sizes)
    parts = read_pspe(write(checkpoint), attention_heads=4, tokenizer=str(vocabulary))
    write_folder(parts, tmp_path / "export")
    spe, model = SpanPairEncoder.from_pretrained(tmp_path / "export"), load_pretraining_model(tmp_path / "export")
    assert model.tbo_head is not None and model.spo_head is not None
    words = checkpoints.WORDS
    ours = spe.encode_pair(words, (1, 2), (4, 5))

    pieces = spe.tokenizer(words, is_split_into_words=True)
    first_pieces = [pieces.word_ids().index(number) for number in range(len(words))]
    spans = [(0, 1), (1, 2), (2, 4), (4, 5), (5, len(words))]
    view = predecessor.View(pieces["input_ids"], first_pieces, spans)
    weights = {k.removeprefix("span_pair_encoder."): v for k, v in checkpoint.items() if k.startswith("span_pair")}
    torch.testing.assert_close(ours, predecessor.forward(weights, sizes, [view]).pair_vectors[0], **TOLERANCE)


def break_name(checkpoint, name, tensor=None):
    name = f"span_pair_encoder.{name}"
    return {k: v for k, v in checkpoint.items() if k != name} | ({} if tensor is None else {name: tensor})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: {f"ent_model.{k}": v for k, v in c.items()}, "fine-tuned"),
        (lambda c: {"weights": torch.ones(2)}, "not a pre-training checkpoint"),
        (lambda c: [1, 2], "list"),
        (lambda c: break_name(c, "ent2hidden.linear.bias"), "not complete"),
        (lambda c: break_name(c, "attention_encoder.score_linear.weight"), "not complete"),
        (lambda c: break_name(c, "bert_encoder.bert_model.pooler.dense.weight"), "pooler"),
        (lambda c: break_name(c, "bert_encoder.bert_model.encoder.layer.1.output.dense.bias"), "not complete"),
        (lambda c: break_name(c, "bert_encoder.bert_model.embeddings.position_embeddings.weight"), "not complete"),
        (lambda c: break_name(c, "entity_span_extractor.cnn_encoder.conv_layer_1.bias"), "not complete"),
        (lambda c: break_name(c, "bert_encoder.bert_model.pooler.dense.bias", torch.ones(2)), r"is \[2\], not \[32\]"),
        (lambda c: break_name(c, "bert_encoder.mlp.linear.weight", torch.ones(2, 2)), "bert_output_size"),
        (lambda c: break_name(c, "surprise.weight", torch.ones(2)), "surprise.weight"),
        (lambda c: break_name(c, "position_embedding.weight", torch.ones(9, 5)), "9 rows"),
    ],
)
def test_what_cannot_be_imported_is_refused_with_its_reason(predecessor, write, change, message):
    checkpoint = predecessor.random_checkpoint(predecessor.Sizes())
    with pytest.raises(CheckpointError, match=message):
        read_pspe(write(change(checkpoint)), attention_heads=4)


def test_momentum_encoder_that_is_not_in_the_file_is_an_error(predecessor, write):
    query = {k: v for k, v in predecessor.random_checkpoint(predecessor.Sizes()).items() if k.startswith("span")}
    with pytest.raises(CheckpointError, match="momentum"):
        read_pspe(write(query), "key", attention_heads=4)


def test_heads_that_cannot_be_guessed_are_asked_for(predecessor, write):
    file = write(predecessor.random_checkpoint(predecessor.Sizes()))
    with pytest.raises(ConfigError, match="--attention_heads"):
        read_pspe(file)
    file = write(predecessor.random_checkpoint(predecessor.Sizes(hidden=64)))
    for impossible in (5, 0, -4):
        with pytest.raises(ConfigError, match="does not divide"):
            read_pspe(file, attention_heads=impossible)


def test_tokenizer_of_another_size_is_refused(predecessor, checkpoints, write, tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(checkpoints.PIECES) + "\n")
    file = write(predecessor.random_checkpoint(predecessor.Sizes()))
    with pytest.raises(ConfigError, match="pieces"):
        read_pspe(file, attention_heads=4, tokenizer=str(tmp_path / "vocab.txt"))


def test_a_pickled_model_runs_no_code(write, tmp_path):
    with pytest.raises(CheckpointError, match="state_dict"):
        read_pspe(write(torch.nn.GELU()))
    (tmp_path / "short").write_bytes(b"PK\x03\x04 cut")
    with pytest.raises(CheckpointError):
        read_pspe(tmp_path / "short")
    with pytest.raises(CheckpointError, match="does not exist"):
        read_pspe(tmp_path / "absent")
