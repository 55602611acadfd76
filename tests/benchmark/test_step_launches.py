"""The whole pre-training step as a GPU runs it, on torch's device without data: what it launches and waits for."""

import pytest
from small_steps import make_batch
from transformers import BertConfig

from spe_dist.benchmark.step_launches import count_step
from spe_dist.config.loading import resolve
from spe_dist.config.pretraining import Config
from spe_dist.pretraining import step

# At BERT-base, one micro-batch, float16: forward, keys, losses with metrics, and backward. Lower it with the code.
MOST_LAUNCHES = 1_218
BERT_BASE_PARAMETERS = 233  # with span encoders and heads

SMALL = {"hidden_size": 64, "layers": 2, "attention_heads": 2, "intermediate_size": 128, "queue_keys": 100}
ATTENTION = {"_flash_attention_forward", "_flash_attention_backward"}


def bert_of(config: Config) -> BertConfig:
    model = config.model
    return BertConfig(
        vocab_size=60,
        hidden_size=model.hidden_size,
        num_hidden_layers=model.layers,
        num_attention_heads=model.attention_heads,
        intermediate_size=model.intermediate_size,
        hidden_dropout_prob=model.dropout,
        attention_probs_dropout_prob=model.dropout,
    )


def run(precision="float16", n_micro_batches=1, **given):
    config = resolve([given])
    micro_batches = [make_batch(config, 100 * i, 8) for i in range(n_micro_batches)]
    counter, model = count_step(config, bert_of(config), micro_batches, precision)
    return counter, dict(model.named_parameters())


@pytest.fixture(scope="module")
def bert_base():
    return run()


def test_a_step_at_bert_base_stays_within_its_launches(bert_base):
    counter, _ = bert_base
    launches = counter.launches_by_phase()
    assert set(launches) == {"query", "keys", "losses", "backward", "average", "enqueue"}
    assert sum(launches[phase] for phase in ("query", "keys", "losses", "backward")) <= MOST_LAUNCHES


def test_a_step_waits_for_nothing(bert_base):
    counter, _ = bert_base
    assert not counter.waits


def test_packed_attention_trains_with_dropout_and_every_parameter_has_a_gradient(bert_base):
    counter, parameters = bert_base
    assert len(parameters) == BERT_BASE_PARAMETERS
    assert all(p.grad is not None and p.grad.device.type == "meta" for p in parameters.values())
    for phase, name in (("query", "_flash_attention_forward"), ("backward", "_flash_attention_backward")):
        assert counter.launches[phase, name] == 12
    assert counter.launches["keys", "_varlen_attn"] == 12  # keys have no dropout


CASES = {
    "bfloat16": {"precision": "bfloat16"},
    "float32": {"precision": "float32"},
    "mixed precision": {"precision": "mixed"},
    "several micro-batches": {"n_micro_batches": 3},
    "further permutations": {"permutations": 3},
    "the pooler": {"cls_source": "pooler"},
    "keys with dropout": {"key_dropout": True},
    "dropout by slots": {"dropout_seed": "slot", "key_dropout": True, "permutations": 2, "n_micro_batches": 2},
    "dropout by slots in float32": {"dropout_seed": "slot", "precision": "float32"},
    "no dropout": {"dropout": 0.0},
    "vectors of any length": {"normalize": False},
    "no contrastive head": {"contrastive_head": False},
    "masks of every piece": {"view_masks": "each"},
    "a queue in 16 bit": {"queue_dtype": "bfloat16"},
    "token boundaries alone": {"spo": False, "cspo": False},
    "permutations alone": {"tbo": False, "cspo": False},
    "contrast alone": {"tbo": False, "spo": False},
    "the average on every rank": {"average": "replicated"},
}


@pytest.mark.parametrize("case", CASES)
def test_no_setting_makes_the_step_wait(case):
    counter, parameters = run(**{**SMALL, **CASES[case]})
    assert not counter.waits
    assert all(p.grad is not None for p in parameters.values())
    attends_packed = CASES[case].get("precision") != "float32"
    assert attends_packed == any(name in ATTENTION | {"_varlen_attn"} for _, name in counter.launches)


def test_a_number_read_in_the_step_is_seen(monkeypatch):
    monkeypatch.setattr(step, "add_sums", lambda sums, terms: [term.loss_sum.item() for term in terms.values()])
    with pytest.raises(RuntimeError, match="meta"):
        run(**SMALL)
