"""Pages as a browser lays them out at three widths: nothing covers anything else, filters hide what they should."""

from __future__ import annotations

import json
import random
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from spe_dist.extraction.corpora.corpus import Corpus, Document, Entity, Relation, Sentence
from spe_dist.extraction.drawing.comparison_page import comparison_page
from spe_dist.extraction.drawing.pages import predictions_page
from spe_dist.extraction.scoring.comparison import compare_systems

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="needs chromium or chrome")

# Measures every drawing at three widths. The result is left in the page, from where --dump-dom brings it here.
PROBE = """
const faults = [], counts = [];
const overlaps = (a, b) => Math.min(a.right, b.right) - Math.max(a.left, b.left) > 0.6
  && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 0.6;
for (const width of [400, 1000, 1600]) {
  document.body.style.maxWidth = document.body.style.width = `${width}px`;
  layOut();
  if (document.body.scrollWidth > width) faults.push([width, "the page is wider", document.body.scrollWidth]);
  let lines = 0;
  document.querySelectorAll(".drawn").forEach((box, number) => {
    const fault = (...what) => faults.push([width, number, ...what]);
    const outer = box.getBoundingClientRect();
    const patches = [...box.querySelectorAll("svg rect")].map((patch) => patch.getBoundingClientRect());
    const range = document.createRange();
    range.selectNodeContents(box.querySelector("p"));
    const words = [...range.getClientRects()].filter((rect) => rect.height < 30);
    lines += words.length;
    patches.forEach((patch, i) => {
      if (patch.left < outer.left - 1 || patch.right > outer.right + 1) fault("a label leaves the drawing");
      if (patches.slice(i + 1).some((other) => overlaps(patch, other))) fault("labels cover each other");
      if (words.some((word) => overlaps(patch, word))) fault("a label covers words");
      if (patch.top < outer.top - 6) fault("a label leaves the drawing above");
    });
    const tails = new Set([...box.querySelectorAll("li:not(.off)")].map((item) => item.dataset.t));
    const tips = [...box.querySelectorAll("mark:not(.off)")].filter((mark) => tails.has(mark.dataset.e));
    for (const head of box.querySelectorAll("svg polygon")) {
      const tip = head.getBoundingClientRect();
      const fits = (mark) => Math.abs(mark.top - tip.bottom) < 3 && mark.left < tip.right && tip.left < mark.right;
      if (!tips.some((mark) => fits(mark.getBoundingClientRect()))) fault("an arrow points at no tail");
    }
    const relations = box.querySelectorAll("li:not(.off)").length;
    if (box.querySelectorAll("svg polygon").length !== relations) fault("a relation has no arrow, or several");
  });
  counts.push(lines);
}
const drawn = () => ["mark:not(.off)", "svg polygon", "article:not([hidden])"].map(
  (selector) => document.querySelectorAll(selector).length);
const steps = { all: drawn() };
const change = (selector, property, value) => {
  const field = document.querySelector(selector);
  field[property] = value;
  field.dispatchEvent(new Event("input", { bubbles: true }));
};
FILTERS
const result = document.createElement("pre");
result.id = "result";
result.textContent = JSON.stringify({ faults, counts, steps });
document.body.append(result);
"""


def measured(page: str, folder: Path, filters: str = "") -> dict[str, Any]:
    """What PROBE finds on a page; `filters` are further steps of it."""
    path = folder / "page.html"
    probe = PROBE.replace("FILTERS", filters)
    path.write_text(page.replace("</body>", f"<script>{{{probe}}}</script></body>"), encoding="utf-8")
    command = [str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--window-size=1700,1000", "--dump-dom"]
    command += [f"--user-data-dir={folder / 'browser'}", path.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=True)
    found = re.search(r'<pre id="result">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, done.stdout[-2000:] + done.stderr[-2000:]
    return json.loads(unescape(found[1]))


def random_sentence(draw: random.Random) -> Sentence:
    """Words of several scripts; entities next to each other, nested and crossing; relations between any of them."""
    alphabets = ("abcdefgh", "אבגדהוז", "東京大学北", "🙂🚀")
    letters = draw.choices(alphabets, (8, 2, 2, 1))[0]
    words = tuple("".join(draw.choices(letters, k=draw.randint(1, 8))) for _ in range(draw.randint(1, 50)))
    entities = []
    for _ in range(draw.randint(0, 8)):
        start = draw.randrange(len(words))
        end = min(len(words), start + draw.randint(1, 5))
        entities.append(Entity(start, end, draw.choice(("Per", "LongNameOfAType")), probability=draw.random()))
    entities = list(dict.fromkeys(entities))
    pairs = [(draw.choice(entities), draw.choice(entities)) for _ in range(draw.randint(0, 8) if entities else 0)]
    kinds = ("r", "/business/company_shareholder/major_shareholder_of")
    return Sentence(words, tuple(entities), tuple(Relation(draw.choice(kinds), *pair, draw.random()) for pair in pairs))


def test_neither_labels_nor_words_cover_each_other_and_arrows_meet_their_tails(tmp_path: Path) -> None:
    draw = random.Random(0)
    sentences = [random_sentence(draw) for _ in range(120)]
    found = measured(predictions_page(sentences), tmp_path)
    assert found["faults"] == []
    narrow, middle, wide = found["counts"]
    assert narrow > middle > wide  # lines: the page uses the width that it has


KIM, ACME, OSLO = Entity(0, 1, "Per", (), 0.9), Entity(2, 3, "Org", (), 0.4), Entity(5, 6, "Loc", (), 0.8)
WORKS, LIVES = Relation("works_for", KIM, ACME, 0.7), Relation("lives_in", KIM, OSLO, 0.95)
SENTENCE = Sentence(tuple("Kim of Acme lives in Oslo".split()), (KIM, ACME, OSLO), (WORKS, LIVES))

PREDICTION_FILTERS = """
change("[data-of=relations] .chip input", "checked", false);
steps.noLivesIn = drawn();
document.querySelectorAll("[data-of=relations] button")[0].click();
change("[data-of=entities] input[type=range]", "value", 50);
steps.probableEntities = drawn();
change("[data-of=relations] input[type=range]", "value", 99);
steps.probableRelations = drawn();
document.querySelectorAll("[data-of=entities] button")[1].click();
change("#found", "checked", true);
steps.onlyFound = drawn();
document.querySelectorAll("[data-of=entities] button")[0].click();
change("#words", "value", "NOTHING");
steps.words = drawn();
"""


def test_filters_hide_types_and_what_is_less_probable(tmp_path: Path) -> None:
    page = predictions_page([SENTENCE, Sentence(("nothing", "here"))])
    found = measured(page, tmp_path, PREDICTION_FILTERS)
    assert found["faults"] == []
    assert found["steps"] == {
        "all": [3, 2, 2],
        "noLivesIn": [3, 1, 2],
        "probableEntities": [2, 1, 2],  # without Acme, and so without works_for
        "probableRelations": [2, 0, 2],
        "onlyFound": [0, 0, 0],
        "words": [2, 0, 0],  # the second sentence holds them, but nothing is drawn in it
    }


COMPARISON_FILTERS = """
change("#show", "value", "a");
steps.onlyA = drawn();
change("#of", "value", document.querySelector("#of optgroup option").value);
steps.onlyAOfEntities = drawn();
"""


def test_a_comparison_shows_the_sentences_that_are_asked_for(tmp_path: Path) -> None:
    def corpus(*sentences: Sentence) -> Corpus:
        return Corpus(tuple(Document(str(i), (sentence,)) for i, sentence in enumerate(sentences)))

    less = Sentence(SENTENCE.words, (KIM, ACME), (WORKS,))
    without = Sentence(SENTENCE.words, (KIM, ACME))
    both = compare_systems(corpus(SENTENCE, less), corpus(SENTENCE, less), corpus(less, without), draws=5, test_draws=5)
    found = measured(comparison_page(both, "A and B"), tmp_path, COMPARISON_FILTERS)
    assert found["faults"] == []
    shown = {step: articles for step, (_, _, articles) in found["steps"].items()}
    assert shown == {"all": 2, "onlyA": 2, "onlyAOfEntities": 1}
