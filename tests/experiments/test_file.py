"""Experiment files: what is read from them, their faults, and the shipped ones."""

from __future__ import annotations

from pathlib import Path

import pytest
from project import ROOT
from small_experiment import replace, run

from spe_dist.errors import ConfigError
from spe_dist.experiments.file import read_experiment
from spe_dist.experiments.plan import make_plan
from spe_dist.experiments.runner import FINISHED

SHIPPED = ROOT / "spe_dist" / "experiments" / "files"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seeds: [0, 1]", "seed: [0, 1]", "unknown key 'seed'; did you mean 'seeds'"),
        ("seeds: [0, 1]", "seeds: [0, 0]", "give at least one, none twice"),
        ("seeds: [0, 1]", "seeds: [0, x]", "'x' is not a whole number"),
        ("output: OUT\n", "", "'output' is missing"),
        ("output: OUT\n", "output: OUT\noutput: OUT2\n", "the key 'output' stands twice"),
        ("pretraining: spe, export: key", "pretraining: spi", "rows: key: pretraining: there is no 'spi'"),
        ("distant: ds}", "distant: dss}", "did you mean 'ds'"),
        ("export: key", "export: keys", "'keys'; did you mean 'key'"),
        ('encoder: "{bert}", corpus: far', 'encoder: "{bart}", corpus: far', "no value 'bart'; did you mean 'bert'"),
        ("rows: [bert, spe, ds]", "rows: [bert, spe, db]", "tables: main: rows: there is no 'db'"),
        ("rows: [bert, spe, ds]", "rows: [bert, spe]", "'ds' stands in no table"),
        ("corpus: news, rows: [spe, cnn", "corpus: far, rows: [spe, cnn", "'far' has no test file"),
        ("shares: [50]", "shares: [0]", "not a share in per cent"),
        ("shares: [50]", "shares: [half]", "'half' is not a number"),
        ("without_cnn: true", "without_cnm: true", "did you mean 'without_cnn'"),
        ("settings: {steps: 2}", "settings: {step: 2}", "settings of pretraining spe: unknown setting 'step'"),
        ("settings: {steps: 2}", "settings: {output: x}", "'output' is set by the experiment file itself"),
        ('tokenizer: "{bert}"}', 'tokeniser: "{bert}"}', "did you mean 'tokenizer'"),
        ("epochs: 6", "epochs: six", "expected a number"),
        ('encoder: "{bert}", shards: web', "pretraining: spe, shards: web", "circular dependency: pretraining/spe <-"),
        ('encoder: "{bert}", shards: web', 'encoder: "{exports/spe-key}", shards: web', "circular dependency"),
        ('encoder: "{bert}", corpus', 'encoder: "{export/spe-key}", corpus', "did you mean 'exports/spe-key'"),
        ("  bert: {name: BERT", "  'b/t': {name: BERT", "'b/t' names a folder"),
        ("rows: [bert, spe], shares", "rows: [bert, spe], published: {spe: [1, 2]}, shares", "three F1 figures"),
        ("rows:\n", "rows: [\n", "line"),
        ("bert: some-bert, epochs: 3, text: TEXT", "bert: '{b}', b: '{bert}', epochs: 3, text: x", "bert <- b <- bert"),
        ("bert: some-bert", "bert: '{bert}'", "values: circular dependency: bert <- bert"),
        ("shares: {50: {epochs: 6}}", "shares: {50: 6}", "shares: 50: 6 is not a list of settings"),
        ("seeds: [0, 1]", "seeds: [9223372036854775808]", "seeds are whole numbers from 0 to 4,611"),
        ("seeds: [0, 1]", "seeds: [-1]", "seeds are whole numbers from 0 to"),
        (
            '{encoder: "{bert}", corpus: far}',
            "{encoder: x, corpus: far, seed: -1}",
            "seeds are whole numbers from 0 to",
        ),
        ("shares: [50]", "shares: [50], published: {spe@10%: [1, 2, 3]}", "no share '10%'; it has 50"),
    ],
)
def test_a_fault_in_the_file_is_named_with_its_remedy(place: Path, old: str, new: str, message: str) -> None:
    replace(place, old, new)
    with pytest.raises(ConfigError) as caught:
        make_plan(read_experiment(place / "file.yaml"))
    assert message in str(caught.value)


def test_values_are_set_and_those_left_open_are_asked_for_where_they_are_needed(place: Path) -> None:
    replace(place, "text: TEXT", "text: null")
    assert len(make_plan(read_experiment(place / "file.yaml"), ["BERT"]).pieces) == 4
    with pytest.raises(ConfigError, match=r"needed and not given: text; give --set text="):
        make_plan(read_experiment(place / "file.yaml"))
    plan = make_plan(read_experiment(place / "file.yaml", {"text": "TEXT", "bert": "other"}))
    assert plan.pieces["shards/web"].arguments[:2] == ("--input", "TEXT")
    assert "other" in plan.pieces["rows/bert/news-100/seed-0"].arguments
    with pytest.raises(ConfigError, match="no such value; did you mean 'text'"):
        read_experiment(place / "file.yaml", {"texts": "x"})


def test_a_demo_corpus_named_in_a_path_is_made_first(place: Path) -> None:
    replace(place, "values:", "demo: {small: {sentences: 30}}\nvalues:")
    replace(place, "news: {name: News, train: TRAIN", 'news: {name: News, train: "{demo/small}/extraction/train.json"')
    plan = make_plan(read_experiment(place / "file.yaml"), ["BERT"])
    assert next(iter(plan.pieces)) == "demo/small"
    assert plan.pieces["rows/bert/news-100/seed-0"].needs == ("demo/small",)
    assert run(place, only=("BERT",))[0] == FINISHED


def test_a_pretraining_without_contrast_has_no_momentum_encoder(place: Path) -> None:
    replace(place, "settings: {steps: 2}", "settings: {steps: 2, tbo: true, cspo: false}")
    with pytest.raises(ConfigError, match="pre-training spe has no momentum encoder to export, since cspo is false"):
        make_plan(read_experiment(place / "file.yaml"))
    replace(place, ", export: key", "")
    plan = make_plan(read_experiment(place / "file.yaml"), ["exports/*"])
    assert [piece for piece in plan.pieces if piece.startswith("exports/")] == ["exports/spe-query"]


@pytest.mark.parametrize("name", ["demo", "paper", "small", "adapt", "levers", "heads"])
def test_shipped_files_are_whole_and_have_the_rows_of_the_paper(name: str) -> None:
    experiment = read_experiment(SHIPPED / f"{name}.yaml")
    given = {value: "x" for value, default in experiment.values.items() if default is None}
    plan = make_plan(read_experiment(SHIPPED / f"{name}.yaml", given))
    labels = {row.name for row in experiment.rows.values()}
    if name != "heads":
        assert {"BERT", "SPE"} <= labels
    if name in ("adapt", "demo", "small"):
        assert {"MLM", "SPE + MLM"} <= labels
    if name in ("demo", "paper"):
        assert {"SPE(NYT)", "SPE-DS", "- TBO", "- SPO", "- CSPO", "- CNN", "w/o MLP Head", "Momentum encoder"} <= labels
        assert {10.0, 20.0, 50.0, 100.0} == {cell.share for cell in plan.cells}
    if name == "paper":
        assert {"SpanBERT", "SciBERT"} <= labels


def test_the_papers_file_sets_every_value_that_the_method_states() -> None:
    experiment = read_experiment(SHIPPED / "paper.yaml")
    given = {value: "x" for value, default in experiment.values.items() if default is None}
    pieces = make_plan(read_experiment(SHIPPED / "paper.yaml", given)).pieces
    spe, nyt = pieces["pretraining/spe"].settings, pieces["pretraining/spe_nyt"].settings
    assert (spe["steps"], spe["warmup_steps"], spe["learning_rate"]) == (40_000, 18_000, 1e-4)
    assert (nyt["epochs"], nyt["warmup_fraction"], nyt["learning_rate"]) == (10, 0.1, 5e-5)
    distant = pieces["distant/nyt"].settings
    assert (distant["epochs"], distant["warmup_fraction"]) == (10, 0.2)
    row = pieces["rows/spe/ace05-10/seed-0"].settings
    assert (row["learning_rate"], row["head_learning_rate"], row["layer_decay"]) == (2.5e-5, 2.5e-5, 0.9)
    assert (row["epochs"], row["batch_sentences"], row["warmup_fraction"], row["train_share"]) == (200, 32, 0.2, 0.1)
    for key, objective in (("without_tbo", "tbo"), ("without_spo", "spo"), ("without_cspo", "cspo")):
        assert pieces[f"pretraining/{key}"].settings == {**spe, objective: False}
    assert pieces["pretraining/without_mlp"].settings == {**spe, "contrastive_head": False}


def test_the_example_of_the_page_is_a_whole_experiment(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "experiments.md").read_text()
    (tmp_path / "reports.yaml").write_text(page.split("```yaml\n")[1].split("```")[0])
    plan = make_plan(read_experiment(tmp_path / "reports.yaml"))
    kinds = [piece.kind for piece in plan.pieces.values()]
    assert [kinds.count(kind) for kind in ("shards", "pretrain", "export", "finetune")] == [1, 2, 2, 3 * 2 * 5]
    mlm, spe = (plan.pieces[f"pretraining/{name}"].settings for name in ("mlm", "spe"))
    assert not mlm["cspo"] and "cspo" not in spe and mlm["preset"] == spe["preset"] == "adapt"
