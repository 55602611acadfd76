"""The head of masked language modelling and tied decoders, against transformers' BertForMaskedLM."""

import pytest
import torch
from small_steps import VOCABULARY, make_batch, small_config
from transformers import BertConfig, BertForMaskedLM, BertForPreTraining

from spe_dist.errors import ConfigError
from spe_dist.model.loading import load_encoder
from spe_dist.model.start.build import build_pretraining_model
from spe_dist.pretraining.objectives import prediction_terms

ONLY_MLM = {"mlm": True, "tbo": False, "spo": False, "cspo": False}


@pytest.fixture(scope="module")
def reference():
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
    model = BertForPreTraining(BertConfig(vocab_size=VOCABULARY, **sizes)).eval()
    with torch.no_grad():
        for parameter in model.cls.parameters():
            parameter += 0.1 * torch.randn(parameter.shape)
    return model


@pytest.fixture(scope="module", params=["safetensors", "bin"])
def folder(reference, request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bert")
    reference.save_pretrained(folder)
    if request.param == "bin":
        (folder / "model.safetensors").unlink()
        torch.save(reference.state_dict(), folder / "pytorch_model.bin")
    return folder


def build(folder, **given):
    config = small_config(**{**ONLY_MLM, **given})
    loaded = load_encoder(str(folder), config.model, VOCABULARY, 0, mlm=True)
    return config, build_pretraining_model(config, loaded.encoder, loaded.mlm_state)


def padded(batch):
    """Inputs and labels as BertForMaskedLM takes them: one row a sequence, -100 where nothing is predicted."""
    lengths = batch.cu_seqlens_Q1.diff().tolist()
    labels_T = torch.full_like(batch.piece_ids_T, -100).scatter(0, batch.mlm_token_Y, batch.mlm_label_Y)
    pad = {"batch_first": True, "padding_value": 0}
    rows = torch.nn.utils.rnn.pad_sequence(batch.piece_ids_T.split(lengths), **pad)
    labels = torch.nn.utils.rnn.pad_sequence(labels_T.split(lengths), batch_first=True, padding_value=-100)
    attended = torch.nn.utils.rnn.pad_sequence([torch.ones(n) for n in lengths], batch_first=True)
    return {"input_ids": rows, "labels": labels, "attention_mask": attended}


def test_loss_and_gradients_are_those_of_transformers_on_the_same_input(reference, folder):
    config, model = build(folder)
    batch = make_batch(config, 0, 6)
    loss = prediction_terms(model(batch), batch)["mlm"].loss_sum / len(batch.mlm_label_Y)
    loss.backward()
    plain = BertForMaskedLM.from_pretrained(folder).eval()
    expected = plain(**padded(batch)).loss
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    found, wanted = dict(model.named_parameters()), dict(plain.named_parameters())
    pairs = {f"spe.encoder.{name.removeprefix('bert.')}": name for name in wanted if name.startswith("bert.")}
    pairs |= {
        f"mlm_head.transform.{part}": f"cls.predictions.transform.{part}" for part in ("dense.weight", "LayerNorm.bias")
    }
    pairs["mlm_head.decoder.bias"] = "cls.predictions.bias"
    for ours, theirs in pairs.items():
        assert torch.allclose(found[ours].grad, wanted[theirs].grad, atol=1e-6), ours
    assert model.spe.span_encoder is None and model.spe.pair_encoder is None  # alone it needs neither


@pytest.mark.parametrize("decoder", ["random", "embeddings", "tied"])
def test_a_decoder_starts_at_random_as_the_embeddings_or_is_them(folder, decoder):
    _, model = build(folder, tbo=True, tbo_decoder=decoder, mlm_decoder=decoder)
    embeddings = model.spe.encoder.embeddings.word_embeddings.weight
    for head in (model.tbo_head, model.mlm_head):
        weight = head.decoder.weight
        assert (weight is embeddings) == (decoder == "tied")
        assert torch.equal(weight, embeddings) == (decoder != "random")
    assert sum(name.endswith("decoder.weight") for name in model.state_dict()) == (0 if decoder == "tied" else 2)
    again = build(folder, tbo=True, tbo_decoder=decoder, mlm_decoder=decoder)[1]
    again.load_state_dict({name: value + 1 for name, value in model.state_dict().items()})
    assert torch.equal(again.mlm_head.decoder.weight, model.mlm_head.decoder.weight + 1)


def test_a_part_of_a_head_is_refused(reference, tmp_path):
    from safetensors.torch import load_file, save_file

    reference.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["cls.predictions.transform.dense.bias"]
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ConfigError, match=r"transform\.dense\.bias is missing.*mlm_decoder=random"):
        load_encoder(str(tmp_path), small_config().model, VOCABULARY, 0, mlm=True)


def test_the_other_objectives_compute_what_they_do_without_it():
    given = {"permutations": 3}
    outputs = []
    for mlm in (False, True):
        config = small_config(mlm=mlm, **given)
        model = build_pretraining_model(config, load_encoder(None, config.model, VOCABULARY, 0).encoder).eval()
        outputs.append(model(make_batch(config, 0, 6)))
    without, with_mlm = outputs
    for name in ("tbo_logits_MV", "spo_logits_PO", "pair_queries_BC", "context_queries_BC"):
        assert torch.allclose(getattr(without, name), getattr(with_mlm, name), atol=1e-5)
    assert without.mlm_logits_YV is None and with_mlm.mlm_logits_YV.shape[0] > 0
