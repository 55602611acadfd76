"""README and documentation agree with the code: options, files, links, examples, generated parts."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path
from textwrap import dedent

import pytest
from project import ROOT, SHARED

from spe_dist.cli.main import COMMANDS
from spe_dist.config.finetuning import FinetuneConfig
from spe_dist.config.loading import leaves
from spe_dist.config.pretraining import Config
from spe_dist.extraction.formats import FORMATS, read_corpus
from tools import docs_site

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
USAGE = [page for page in PAGES if page.name not in ("METHOD.md", "CHANGELOG.md")]
VOCABULARY = SHARED / "data" / "vocab" / "bert-base-cased-vocab.txt"


def blocks(page: Path, *languages: str) -> list[str]:
    """The fenced blocks of a page in one of these languages; "" is a block without one."""
    found = re.findall(r"^( *)```(\w*)\n(.*?)^\1```", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    return [
        re.sub(f"^{indent}", "", text, flags=re.MULTILINE) for indent, language, text in found if language in languages
    ]


def commands_of(page: Path) -> list[list[str]]:
    """Every command of `spe` on a page, as words: in blocks and between backticks."""
    text = "\n".join(blocks(page, "sh", "", "bash")).replace("\\\n", " ")
    lines = [line.split(" && ") for line in text.splitlines()]
    inline = re.findall(r"`(spe [^`]+)`", page.read_text())
    return [words for line in [*lines, inline] for part in line if (words := _spe_words(part))]


def _spe_words(line: str) -> list[str]:
    words = shlex.split(line.split(" | ")[-1], comments=True)
    if words[:1] == ["spe"]:
        return words[1:]
    for name in ("pretrain", "finetune"):
        for position, word in enumerate(words):
            if word in (f"spe_dist/{name}.py", f"slurm/{name}.sh", f"spe_dist.{name}"):
                return [name, *words[position + 1 :]]
    return []


@cache
def options_of(*command: str) -> frozenset[str]:
    """What the command's help names."""
    words = [sys.executable, "-m", "spe_dist", *command, "--help-all"]
    shown = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return frozenset(re.findall(r"--[a-z][\w-]*", shown)) | {"--help"}


@pytest.mark.parametrize("page", USAGE, ids=lambda page: page.name)
def test_every_command_of_a_page_exists_with_the_options_it_is_given(page):
    for words in commands_of(page):
        if words[0] in ("COMMAND", "--help", "--version"):
            continue
        assert words[0] in COMMANDS, words
        subcommand = (
            words[:2] if words[0] in ("shards", "corpus", "experiments", "benchmark") and len(words) > 1 else words[:1]
        )
        if "|" in subcommand[-1]:
            continue
        given = {word.split("=")[0] for word in words if word.startswith("--")}
        assert given <= options_of(*subcommand), words


def test_pages_with_commands_are_read():
    assert len(commands_of(ROOT / "README.md")) > 8
    assert len(commands_of(ROOT / "docs" / "tutorial.md")) > 8
    assert ["pretrain", "--preset", "paper", "--shards", "SHARDS", "--output", "RUN"] in commands_of(
        ROOT / "docs" / "cluster.md"
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_files_resolve(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if target.startswith(("http://", "https://", "#", "files/")):
            continue
        path = target.split("#")[0]
        assert (page.parent / path).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", USAGE, ids=lambda page: page.name)
def test_files_that_a_page_names_exist(page):
    named = set(re.findall(r"\b(?:spe_dist|tools|ds_configs|slurm|tests|examples)/[\w./-]+\.\w+\b", page.read_text()))
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


def test_folders_and_modules_that_the_architecture_names_exist():
    text = (ROOT / "docs" / "architecture.md").read_text()
    named = re.findall(r"`((?:\w+/)+\w*(?:\.py)?)`", text)
    assert len(named) > 20
    missing = [name for name in named if not (ROOT / "spe_dist" / name).exists() and not (ROOT / name).exists()]
    assert missing == []


def test_the_readme_has_at_most_two_screens():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 110


# What is generated while the site is built.


@pytest.mark.parametrize(("kind", "config"), [("pretraining", Config), ("finetuning", FinetuneConfig)])
def test_the_page_of_settings_has_every_setting_with_its_default_and_presets(kind, config):
    page = docs_site.settings(kind)
    for leaf in leaves(config).values():
        assert f"`--{leaf.name}`" in page
    if kind == "pretraining":
        assert "| **`--learning_rate`** | `0.0001` |" in page
        assert "paper: `each`" in page


def test_the_tree_has_every_module_and_each_says_what_it_is():
    tree = docs_site.tree()
    for package in docs_site.packages():
        assert f"<code>{package.relative_to(ROOT)}/</code>" in tree
        for file in [package / "__init__.py", *docs_site.modules_of(package)]:
            assert docs_site.sentence(file), f"{file} has no docstring"
            assert file.name == "__init__.py" or f"`{file.name}`: " in tree


def test_every_mark_of_a_page_is_replaced():
    markdown = "a\n<!-- generated: settings finetuning -->\nb\n<!-- generated: help score --help -->\n"
    page = docs_site.on_page_markdown(markdown)
    assert "<!--" not in page
    assert "`--gold_epochs`" in page and "--baseline" in page


def test_the_drawn_example_has_what_the_printed_one_has():
    drawn = docs_site.views("docs/example.md")
    rows = [re.sub(r"<[^>]+>", " ", row).split() for row in drawn.split("</tr>")]
    assert rows[1][:3] == ["sentence", "Konrad", "Zuse"]
    assert "and grew up Berlin" in " ".join(rows[2])
    assert " ".join(rows[3]) == "span-pair view [MASK] Z [MASK] [MASK] and grew up Berlin [MASK]"
    assert " ".join(rows[4]) == "context view Konrad [MASK] was born in [MASK] Braun [MASK] . in"


def test_every_page_is_in_the_navigation():
    navigation = (ROOT / "mkdocs.yml").read_text()
    assert [page.name for page in (ROOT / "docs").glob("*.md") if f": {page.name}\n" not in navigation] == []


def test_the_site_asks_no_other_host_for_anything():
    settings = (ROOT / "mkdocs.yml").read_text()
    assert "font: false" in settings
    assert "://" not in settings


# Examples in pages.


def test_the_sentence_shown_as_a_training_example_is_what_the_command_prints(tmp_path):
    if not VOCABULARY.exists():
        pytest.skip("needs the vocabulary of bert-base-cased")
    run = [sys.executable, "-m", "spe_dist", "shards"]
    notes = ROOT / "docs" / "files" / "notes.txt"
    make = [*run, "make", "--input", str(notes), "--output", "shards", "--tokenizer", str(VOCABULARY)]
    subprocess.run(make, cwd=tmp_path, check=True, capture_output=True)
    show = [*run, "show", "shards", "--sentence", "3"]
    shown = subprocess.run(show, cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    assert shown.strip() == blocks(ROOT / "docs" / "example.md", "text")[0].strip()


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "docs" / "tutorial.md"], ids=lambda page: page.name)
def test_the_labelled_example_is_a_corpus(page, tmp_path):
    file = tmp_path / "train.json"
    file.write_text(blocks(page, "json")[0])
    corpus = read_corpus(file)
    sentences = [sentence for document in corpus.documents for sentence in document.sentences]
    assert corpus.format == "plain"
    assert [(len(sentence.entities), len(sentence.relations)) for sentence in sentences] == [(2, 1), (2, 1), (1, 0)]
    assert not corpus.notices


def test_the_same_sentence_is_read_from_the_example_of_every_format(tmp_path):
    text = (ROOT / "docs" / "formats.md").read_text()
    labelled = text[text.index("## Labelled corpora") : text.index("## Predictions")]
    tabs = re.findall(r'=== "(\w+)"(.*?)(?=\n\S|\Z)', labelled, flags=re.DOTALL)
    json_examples = [(name, re.findall(r"```json\n\s*(.*?)\n", tab)) for name, tab in tabs]
    examples = [(name, line) for name, lines in json_examples for line in lines[:1]]
    names = [name for name, _ in examples]
    assert (
        {"plain", "spert", "dygie", "pspe", "nyt", "doccano", "label_studio", "prodigy"} <= set(names) <= set(FORMATS)
    )
    read = []
    for name, line in examples:
        file = tmp_path / f"{name}.json"
        file.write_text(line)
        corpus = read_corpus(file)
        assert corpus.format == name
        (document,) = corpus.documents
        (sentence,) = document.sentences
        if name == "triples":  # which has no types
            spans = [relation.span for relation in (sentence.relations[0].head, sentence.relations[0].tail)]
            assert (sentence.words, spans) == (read[0][0], [entity.span for entity in read[0][1]])
            continue
        read.append((sentence.words, sentence.entities, sentence.relations))
    assert read == [read[0]] * len(read) and len(read) == len(names) - 1
    columns = {
        name: dedent(re.findall(r"```text\n(.*?)```", tab, re.DOTALL)[0]) for name, tab in tabs if "```text" in tab
    }
    for name in ("conll", "multihead"):
        file = tmp_path / f"{name}.txt"
        file.write_text(columns[name])
        (sentence,) = read_corpus(file).sentences
        assert (sentence.words, sentence.entities) == read[0][:2]
        assert sentence.relations == (() if name == "conll" else read[0][2])


def test_json_in_pages_is_valid():
    for page in PAGES:
        for block in blocks(page, "json"):
            for line in block.splitlines():
                json.loads(line)
