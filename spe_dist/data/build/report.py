"""What a build reports: reasons for skipping, a progress bar, and a closing table."""

from __future__ import annotations

import sys
import time
from typing import Any

from spe_dist.data.build.settings import MIN_WORDS
from spe_dist.data.shards.manifest import SPLITS, Manifest
from spe_dist.data.text.lines import BAD_JSON, NO_TEXT_FIELD, UNDECODABLE
from spe_dist.data.text.markup import OTHER_MARKUP
from spe_dist.utils.tables import aligned
from spe_dist.utils.wording import counted, how_many, rate

TOO_SHORT = f"sentences under {MIN_WORDS} words"
TOO_LONG = "sentences over the limit of pieces"
EXACT_DUPLICATES = "sentences that stood before word for word"
NEAR_DUPLICATES = "sentences that stood before but for case and spaces"
KEPT = ", kept"
WITHOUT_PIECES = "words without pieces (control characters), dropped"
UNKNOWN_WORDS = "words with [UNK] pieces, kept"
SPECIAL_WRITTEN = "sentences in which a special token is written, taken as text"
MANY_UNKNOWN_WORDS = 0.05  # share of all words
MANY_SKIPPED = 0.2  # share of all sentences and bad lines, above which a build says what to do
REMEDIES = {
    TOO_SHORT: "are lines titles or items of lists? Where text has no spaces between words, give its --language (zh, "
    "ja, th, ...) and leave --words away",
    TOO_LONG: "raise --max_pieces; give --unit documents where lines are paragraphs, and a --tokenizer of the text's "
    "language where there are many pieces a word",
    UNDECODABLE: "convert the files to UTF-8",
    BAD_JSON: "repair the files, or give --format text if they are not JSON",
    NO_TEXT_FIELD: "name the field with --text_field",
}
MUCH_MARKUP = 0.02  # share of the sentences


class Progress:
    """A bar on a terminal while a stage runs, one line about it at its end."""

    def __init__(self, title: str, total: int, quiet: bool) -> None:
        from tqdm import tqdm

        self._title, self._quiet = title, quiet
        self._start_s = time.monotonic()
        self._sentences = 0
        self._bar: Any = tqdm(
            desc=title,
            total=total,
            disable=quiet or not sys.stderr.isatty(),
            leave=False,
            bar_format="{desc}: {percentage:3.0f}%|{bar}| {elapsed}, {remaining} left{postfix}",
        )

    def advance_to(self, position: int, sentences: int) -> None:
        """`position` of the total is reached; `sentences` more are done."""
        self._sentences += sentences
        self._bar.set_postfix_str(f"{self._rate()} sentences/s", refresh=False)
        self._bar.update(min(position, self._bar.total) - self._bar.n)

    def _rate(self) -> str:
        """Sentences a second so far."""
        return rate(self._sentences, time.monotonic() - self._start_s)

    def close(self) -> None:
        self._bar.close()
        if not self._quiet:
            seconds = time.monotonic() - self._start_s
            print(f"{self._title}: {how_many(self._sentences, 'sentence')} in {seconds:.0f} s, {self._rate()} a second")


def closing_table(manifest: Manifest) -> str:
    """Sentences kept by split, words, pieces, bytes; what was skipped and noticed, by reason."""
    rows: list[list[str]] = [["", "sentences", "words", "pieces", "pieces/word", "shards", "blocks", "bytes"]]
    for split in SPLITS:
        shards = manifest.splits.get(split, ())
        sentences, words, pieces = (sum(getattr(s, name) for s in shards) for name in ("sentences", "words", "pieces"))
        blocks, size = sum(len(shard.blocks) for shard in shards), sum(shard.bytes for shard in shards)
        ratio = f"{pieces / words:.3f}" if words else "-"
        numbers = [f"{number:,}" for number in (sentences, words, pieces, len(shards), blocks, size)]
        rows.append([split.replace("_", "-"), *numbers[:3], ratio, *numbers[3:]])
    lines = aligned(rows)
    lines.append("skipped: " + ("; ".join(counted(manifest.skipped)) or "nothing"))
    lines += [f"noticed: {notice}" for notice in counted(manifest.noticed)]
    return "\n".join(lines)


def warnings_of(manifest: Manifest) -> list[str]:
    """What a user should know before training on these shards."""
    warnings = []
    words = sum(shard.words for shards in manifest.splits.values() for shard in shards)
    unknown = manifest.noticed.get(UNKNOWN_WORDS, 0)
    if unknown > MANY_UNKNOWN_WORDS * words:
        warnings.append(
            f"{unknown:,} of {words:,} words are unknown to the vocabulary of {manifest.tokenizer.name}; "
            "does it belong to this text (language, casing)?"
        )
    markup, sentences = manifest.noticed.get(OTHER_MARKUP, 0), _sentences_read(manifest)
    if markup > MUCH_MARKUP * sentences:
        warnings.append(
            f"{markup:,} of {sentences:,} sentences look like markup (HTML, wiki, TeX), which was kept as text; take "
            "it out before, with trafilatura or WikiExtractor, for example"
        )
    pieces = sum(shard.pieces for shards in manifest.splits.values() for shard in shards)
    if pieces == words:
        warnings.append(
            "no word has several pieces (characters as words have one each), so that the token boundary objective has "
            "no targets; pre-train with --tbo false (--mlm true hides characters, too)"
        )
    warnings += _skipped_warnings(manifest)
    if not manifest.n_sentences("held_out"):
        warnings.append(
            "no sentence was held out, so that nothing can be evaluated; give more text or a larger held_out"
        )
    return warnings


def _sentences_read(manifest: Manifest) -> int:
    """Sentences that the text was split into, those that were skipped included."""
    skipped = sum(
        manifest.skipped.get(reason, 0) for reason in (TOO_SHORT, TOO_LONG, EXACT_DUPLICATES, NEAR_DUPLICATES)
    )
    return skipped + sum(manifest.n_sentences(split) for split in manifest.splits)


def _skipped_warnings(manifest: Manifest) -> list[str]:
    """That much of the text is not among the sentences, for which reason most of it, and what helps."""
    lost = {reason: manifest.skipped.get(reason, 0) for reason in REMEDIES}
    kept = sum(manifest.n_sentences(split) for split in manifest.splits)
    n_lost = sum(lost.values())
    if n_lost <= MANY_SKIPPED * (kept + n_lost):
        return []
    most = max(lost, key=lambda reason: lost[reason])
    return [
        f"{n_lost / (kept + n_lost):.0%} of the text was skipped: {n_lost:,} of {kept + n_lost:,} sentences and lines, "
        f"most of them {most} ({lost[most]:,}); {REMEDIES[most]}"
    ]
