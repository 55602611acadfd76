"""Raw text of other languages in prediction: the words are those that the model was trained on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from project import SHARED
from transformers import BertConfig

from spe_dist.config.finetuning import FinetuneConfig
from spe_dist.config.loading import resolve
from spe_dist.data.text.vocabulary import tokenizer_from_pieces
from spe_dist.errors import ConfigError
from spe_dist.export.folder import EXTRACTOR, read_folder, read_json, write_json
from spe_dist.extraction.corpora.corpus import Labels
from spe_dist.extraction.formats import read_corpus
from spe_dist.extraction.joint.batch import collate
from spe_dist.extraction.joint.examples import make_examples
from spe_dist.extraction.joint.folder import network_settings, save_extractor
from spe_dist.extraction.joint.model import JointModel
from spe_dist.extraction.predicting.extractor import Extractor
from spe_dist.extraction.predicting.text_input import InputSettings
from spe_dist.finetuning.build import extraction_settings
from spe_dist.finetuning.data import read_corpora
from spe_dist.model.encoder import PackedBertEncoder
from spe_dist.model.start.build import build_spe_model
from spe_dist.utils.reading.sums import write_sums

CASES = SHARED / "cases" / "annotations"
needs_cases = pytest.mark.skipif(not CASES.is_dir(), reason="the shared cases are not here")
NETWORK = {"dropout": 0.0, "cnn_channels": 10, "span_size": 30, "attention_size": 20, "position_size": 8}
NETWORK |= {"hidden_size": 32, "layers": 2, "attention_heads": 4, "intermediate_size": 64}


@pytest.fixture(scope="module")
def chinese(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small model that was trained on Chinese characters as words."""
    corpus = read_corpus(CASES / "chinese_characters.json")
    sentences, labels = corpus.sentences[:4], Labels.of(corpus.sentences)
    characters = sorted({word for sentence in sentences for word in sentence.words})
    tokenizer = tokenizer_from_pieces(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *characters], do_lower_case=False)
    encoder = BertConfig(
        vocab_size=5 + len(characters),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=40,
    )
    config = resolve_finetuning(language="zh", relation_size=16)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        spe = build_spe_model(network_settings(NETWORK), PackedBertEncoder(encoder))
        model = JointModel(spe, labels, relation_size=16, dropout=0.0)
        optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
        batch = collate(make_examples(sentences, tokenizer, labels, 40))
        for _ in range(60):
            optimizer.zero_grad()
            outputs = model(batch, torch.ones(len(sentences), dtype=torch.bool))
            sum(term.loss_sum / max(term.count, 1) for term in outputs.terms.values()).backward()
            optimizer.step()
    folder = tmp_path_factory.mktemp("chinese") / "model"
    save_extractor(folder, model.eval(), tokenizer, labels, {**NETWORK, **extraction_settings(config, 40)}, {})
    return folder


def resolve_finetuning(**settings: object) -> FinetuneConfig:
    config = resolve([settings], FinetuneConfig)
    config.validate()
    return config


@needs_cases
def test_a_model_of_characters_finds_in_raw_text_what_it_was_trained_on(chinese: Path) -> None:
    extractor = Extractor.from_pretrained(chinese, "cpu", bfloat16=False)
    text = (CASES / "chinese_raw.txt").read_text(encoding="utf-8")
    for found in (extractor.predict(text), list(extractor.predict_files(CASES / "chinese_raw.txt"))):
        assert [sentence.text for sentence in found] == ["张三在北京工作。", "李四在上海学习。"]
        first = found[0]
        assert [(entity.text, entity.type) for entity in first.entities] == [("张三", "人"), ("北京", "地")]
        assert [relation.type for relation in first.relations] == ["工作于"]
        assert [text[entity.start_char : entity.end_char] for entity in first.entities] == ["张三", "北京"]


@needs_cases
def test_the_language_of_training_is_that_of_prediction_unless_another_is_given(chinese: Path, tmp_path: Path) -> None:
    text = tmp_path / "a.txt"
    text.write_text("Am 3. Mai kam er.\n")
    extractor = Extractor.from_pretrained(chinese, "cpu", bfloat16=False)
    assert extractor.language == read_folder(chinese).language == "zh"
    assert [len(found.words) for found in extractor.predict_files(text)] == [3, 4]
    german = Extractor.from_pretrained(chinese, "cpu", bfloat16=False, language="de")
    assert [len(found.words) for found in german.predict_files(text)] == [6]
    assert len(extractor.predict_files(text, InputSettings(language="de")).__next__().words) == 6
    assert [len(found.words) for found in german.predict("Am 3. Mai kam er.")] == [6]
    with pytest.raises(ConfigError, match="language='dutch' is unknown"):
        Extractor.from_pretrained(chinese, "cpu", language="dutch")
    with pytest.raises(ConfigError, match="language='dutch' is unknown"):
        read_corpora(resolve_finetuning(language="dutch", train=str(text)))
    with pytest.raises(ConfigError, match="language='dutch' is unknown"):
        replace(InputSettings(), language="dutch")


@needs_cases
def test_a_folder_of_an_earlier_version_reads_text_by_its_script(chinese: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for path in chinese.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    document = read_json(folder / EXTRACTOR)
    del document["settings"]["language"]
    write_json(folder / EXTRACTOR, document)
    write_sums(folder)
    extractor = Extractor.from_pretrained(folder, "cpu", bfloat16=False)
    assert extractor.language == "auto" and extractor.predict("张三在北京工作。")[0].entities
