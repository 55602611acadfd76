"""Packed views against a plain reference that goes sentence by sentence, and their invariants on real text."""

import itertools
import lzma
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from project import SHARED

from spe_dist.config.pretraining import CorruptionConfig
from spe_dist.data.batches.corruption import Corrupted, SentenceBatch, corrupt, text_ids
from spe_dist.data.batches.packed import PackedBatch
from spe_dist.data.batches.packing import SpecialPieces, longest_sequence, pack
from spe_dist.data.shards.reader import SentenceReader
from spe_dist.utils.ragged import borders

SPECIAL = SpecialPieces(cls_id=2, sep_id=3, mask_id=4)
DATA = SHARED / "data"
CONFIGS = [
    CorruptionConfig(view_masks=view_masks, permutations=n_p) for view_masks in ("each", "one") for n_p in (1, 2, 6)
]
SHOWN = {"pair": (1, 3), "context": (0, 2, 4)}


def words_of(batch: SentenceBatch, sentence: int) -> list[list[int]]:
    """A sentence as a list of words, each a list of pieces."""
    starts = batch.first_piece_W[slice(*batch.word_borders_N1[sentence : sentence + 2])].tolist()
    end = int(batch.piece_borders_N1[sentence + 1])
    return [batch.piece_ids_T[a:b].tolist() for a, b in itertools.pairwise([*starts, end])]


def plain_permuted(words: list, lengths: list[int], orders: list[int]) -> list[list]:
    """The five spans of a sentence, each with its order applied."""
    spans, start = [], 0
    for length, label in zip(lengths, orders, strict=True):
        span = words[start : start + length]
        if label >= 0:
            parts = [span[:1], span[1:-1], span[-1:]]
            span = [word for part in list(itertools.permutations(range(3)))[label] for word in parts[part]]
        spans.append(span)
        start += length
    return spans


class PlainBatch:
    """The lists of a PackedBatch, filled view by view."""

    def __init__(self) -> None:
        names = [f.name for f in fields(PackedBatch) if f.type != "int" and f.name != "dropout_keys"]
        self.lists: dict[str, list[int]] = {name: [] for name in names}
        self.lists["cu_seqlens_Q1"].append(0)
        self.lists["span_borders_S1"].append(0)
        self.targets: dict[tuple[int, int], tuple[int, int, int]] = {}  # (word, offset) -> first piece, offset, label
        self.permuted: dict[int, tuple[int, int]] = {}  # span of the sentence -> span of the batch, label

    def add_view(self, spans, kind: str, each: bool, tbo: set[int], orders: list[int]) -> None:
        """One sequence; tbo: places of target words in the sentence. Targets and labels of this view are collected."""
        out = self.lists
        start = len(out["piece_ids_T"])
        pieces = [SPECIAL.cls_id]
        place = 0
        for k, span in enumerate(spans):
            shown = k in SHOWN[kind]
            if shown and orders[k] >= 0:
                self.permuted[k] = (len(out["span_borders_S1"]) - 1, orders[k])
            if not shown and not each:
                out["first_piece_W"].append(start + len(pieces))
                pieces.append(SPECIAL.mask_id)
            for word in span if shown or each else []:
                first = start + len(pieces)
                out["first_piece_W"].append(first)
                for offset, piece in enumerate(word):
                    if shown and offset and place + span.index(word) in tbo:
                        self.targets[place + span.index(word), offset] = (first, offset, piece[0])
                        pieces.append(SPECIAL.mask_id)
                    else:
                        pieces.append(piece[0] if shown else SPECIAL.mask_id)
            out["span_borders_S1"].append(len(out["first_piece_W"]))
            place += len(span)
        pieces.append(SPECIAL.sep_id)
        out["piece_ids_T"] += pieces
        out["positions_T"] += range(len(pieces))
        out["cu_seqlens_Q1"].append(len(out["piece_ids_T"]))


def plain_pack(batch: SentenceBatch, corrupted: Corrupted, each: bool) -> tuple[dict[str, list[int]], int]:
    """(tensors as lists, longest sequence), from the decisions in `corrupted` alone."""
    n = corrupted.n_sentences
    plain = PlainBatch()
    plain.lists["sentence_ids_B"] = corrupted.sentence_ids_N.tolist()
    plain.lists["text_ids_B"] = corrupted.text_ids_N.tolist()
    # Pieces are marked with where they come from, so that equal words stay apart.
    marks = itertools.count()
    sentences = [[[(piece, next(marks)) for piece in word] for word in words_of(batch, i)] for i in range(n)]
    targets: list[dict] = [{} for _ in range(n)]
    permuted: list[dict] = []
    for copy in range(corrupted.copies):
        found: list[dict] = [{} for _ in range(n)]
        for kind in ("pair", "context"):
            for i in range(n):
                orders = corrupted.orders_CN5[copy, i].tolist()
                if copy and all(orders[k] < 0 for k in SHOWN[kind]):
                    continue
                spans = plain_permuted(sentences[i], corrupted.span_words_N5[i].tolist(), orders)
                word_range = slice(*batch.word_borders_N1[i : i + 2])
                row = slice(*corrupted.word_borders_R1[copy * n + i : copy * n + i + 2])
                sources = corrupted.source_word_V[word_range][corrupted.tbo_words_W[word_range]]
                tbo = {place for place, word in enumerate(corrupted.source_word_V[row]) if word in sources}
                plain.targets, plain.permuted = targets[i] if copy == 0 else {}, found[i]
                plain.add_view(spans, kind, each, tbo, orders)
                if copy:
                    plain.lists["further_places_F"].append((2 * copy + (kind == "context")) * n + i)
        permuted += found
    for _, values in [pair for found in targets for pair in sorted(found.items())]:
        for name, value in zip(("tbo_first_piece_M", "tbo_offset_M", "tbo_label_M"), values, strict=True):
            plain.lists[name].append(value)
    for _, (span, label) in [pair for found in permuted for pair in sorted(found.items())]:
        plain.lists["spo_span_P"].append(span)
        plain.lists["spo_label_P"].append(label)
    return plain.lists, max(np.diff(plain.lists["cu_seqlens_Q1"]).tolist())


@pytest.fixture(scope="module")
def random_batch(memory_store) -> SentenceBatch:
    return SentenceReader(memory_store([200]), 1).read(np.zeros(200, dtype=int), np.arange(200))


@pytest.fixture(scope="module")
def real_batch() -> SentenceBatch:
    """1,000 sentences of Wikipedia in the pieces of bert-base-cased."""
    text, vocabulary = DATA / "text" / "wiki_simple.txt.xz", DATA / "vocab" / "bert-base-cased-vocab.txt"
    if not text.exists() or not vocabulary.exists():
        pytest.skip("needs the shared text and vocabulary")
    from transformers import BertTokenizer

    pieces = vocabulary.read_text(encoding="utf-8").splitlines()
    tokenizer = BertTokenizer(vocab={piece: i for i, piece in enumerate(pieces)}, do_lower_case=False)
    with lzma.open(text, "rt", encoding="utf-8") as file:
        lines = [words for line in itertools.islice(file, 1500) if len(words := line.split()) >= 3]
    sentences = []
    for words in lines:
        tokens = [tokenizer.tokenize(word) for word in words]
        if all(tokens) and sum(map(len, tokens)) <= 126:
            sentences.append([tokenizer.convert_tokens_to_ids(token) for token in tokens])
    sentences = sentences[:1000]
    word_pieces = np.array([len(word) for words in sentences for word in words])
    first = borders(word_pieces)
    word_borders = borders([len(words) for words in sentences])
    ids = np.array([piece for words in sentences for word in words for piece in word], dtype=np.uint16)
    return SentenceBatch(ids, first[word_borders], first[:-1], word_borders)


def both(batch: SentenceBatch, config: CorruptionConfig, special=SPECIAL) -> tuple[Corrupted, PackedBatch]:
    corrupted = corrupt(batch, 1000 + np.arange(batch.n_sentences), 3, 1, config)
    return corrupted, pack(corrupted, special, config.view_masks)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: f"{c.view_masks}-{c.permutations}")
@pytest.mark.parametrize("source", ["random_batch", "real_batch"])
def test_packed_batch_equals_the_plain_reference(source, config, request):
    batch = request.getfixturevalue(source)
    corrupted, packed = both(batch, config)
    expected, longest = plain_pack(batch, corrupted, config.view_masks == "each")
    for name, values in expected.items():
        tensor = getattr(packed, name)
        assert tensor.dtype == (torch.int32 if name == "cu_seqlens_Q1" else torch.int64)
        assert tensor.tolist() == values, name
    assert packed.max_seqlen == longest
    n_views = 2 * packed.n_sentences
    assert (
        packed.view_tokens == packed.cu_seqlens_Q1[n_views] and packed.view_words == packed.span_borders_S1[5 * n_views]
    )
    assert packed.n_sentences == batch.n_sentences and len(packed.span_borders_S1) == 5 * packed.n_sequences + 1


@pytest.mark.parametrize("config", CONFIGS[::3], ids=lambda c: c.view_masks)
def test_the_views_together_show_the_permuted_sentence_minus_its_targets(real_batch, config):
    special = SpecialPieces(101, 102, 103)
    corrupted, packed = both(real_batch, config, special)
    n = real_batch.n_sentences
    assert not np.isin(real_batch.piece_ids_T, [101, 102, 103]).any()
    ids, cu = packed.piece_ids_T.numpy(), packed.cu_seqlens_Q1.numpy()
    label_at = {}
    restored = ids.copy()
    for first, offset, label in zip(
        packed.tbo_first_piece_M.tolist(), packed.tbo_offset_M.tolist(), packed.tbo_label_M.tolist(), strict=True
    ):
        assert ids[first + offset] == 103 and first + offset not in label_at
        label_at[first + offset] = label
        restored[first + offset] = label
    firsts, span_borders = packed.first_piece_W.numpy(), packed.span_borders_S1.numpy()
    for i in range(n):
        visible_pieces = 0
        spans = []
        for k in range(5):
            shown, hidden = (i, n + i) if k % 2 else (n + i, i)
            pieces = []
            for sequence in (shown, hidden):
                start, end = span_borders[5 * sequence + k : 5 * sequence + k + 2]
                sequence_end = cu[sequence + 1] - 1
                stop = firsts[end] if end < len(firsts) and firsts[end] < sequence_end else sequence_end
                pieces.append(slice(firsts[start], stop) if end > start else slice(0, 0))
            assert (ids[pieces[1]] == 103).all()  # no piece of the span is visible in the other view
            if config.view_masks == "one":
                assert pieces[1].stop - pieces[1].start == 1
            visible_pieces += int((ids[pieces[0]] != 103).sum())
            spans.append(restored[pieces[0]].tolist())
        row = slice(*corrupted.first_piece_V1[corrupted.word_borders_R1[i : i + 2]])
        assert [piece for span in spans for piece in span] == corrupted.piece_ids_U[row].tolist()
        words = words_of(real_batch, i)
        tbo_pieces = sum(len(words[w]) - 1 for w in targets_in_source(corrupted, i))
        assert visible_pieces == sum(map(len, words)) - tbo_pieces
    assert len(label_at) > n / 10


def targets_in_source(corrupted: Corrupted, sentence: int) -> list[int]:
    """Original places in the sentence of its target words."""
    start, end = corrupted.word_borders_R1[sentence : sentence + 2]
    return (corrupted.source_word_V[start:end][corrupted.tbo_words_W[start:end]] - start).tolist()


@pytest.mark.parametrize("copies", [1, 6])
def test_the_inverse_permutation_and_the_labels_restore_the_original(real_batch, copies):
    corrupted, _ = both(real_batch, CorruptionConfig(permutations=copies))
    n = real_batch.n_sentences
    assert (corrupted.span_words_N5.sum(axis=1) == np.diff(real_batch.word_borders_N1)).all()
    assert (corrupted.span_words_N5[:, [1, 3]] >= 1).all() and (corrupted.span_words_N5 >= 0).all()
    changed = 0
    for copy, i in itertools.product(range(copies), range(n)):
        start, end = corrupted.word_borders_R1[copy * n + i : copy * n + i + 2]
        firsts = corrupted.first_piece_V1[start : end + 1]
        shown = [corrupted.piece_ids_U[a:b].tolist() for a, b in itertools.pairwise(firsts)]
        original, place = [], 0
        for length, label in zip(corrupted.span_words_N5[i], corrupted.orders_CN5[copy, i], strict=True):
            span = shown[place : place + length]
            if label >= 0:
                order = list(itertools.permutations(range(3)))[label]
                sizes = [(1, length - 2, 1)[part] for part in order]
                parts, at = {}, 0
                for part, size in zip(order, sizes, strict=True):
                    parts[part] = span[at : at + size]
                    at += size
                span = parts[0] + parts[1] + parts[2]
            original += span
            place += length
        assert original == words_of(real_batch, i)
        changed += original != shown
    assert changed > n / 3


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: f"{c.view_masks}-{c.permutations}")
def test_targets_point_at_words_of_their_views(random_batch, config):
    _, packed = both(random_batch, config)
    assert torch.isin(packed.tbo_first_piece_M, packed.first_piece_W).all()
    masked = packed.piece_ids_T[packed.tbo_first_piece_M + packed.tbo_offset_M]
    assert (masked == SPECIAL.mask_id).all() and (packed.tbo_offset_M >= 1).all()
    assert (packed.tbo_label_M > SPECIAL.mask_id).all()
    assert len(packed.spo_span_P.unique()) == len(packed.spo_span_P)
    words = packed.span_borders_S1[packed.spo_span_P + 1] - packed.span_borders_S1[packed.spo_span_P]
    assert (words >= 3).all()
    if config.permutations == 6:  # every permuted span occurs once in each order
        assert len(torch.bincount(packed.spo_label_P, minlength=6).unique()) == 1


def test_a_mask_inside_a_word_does_not_tell_the_copy(random_batch):
    _, packed = both(random_batch, CorruptionConfig(permutations=3, view_masks="one"))
    n = random_batch.n_sentences
    masks_Q = [
        int((packed.piece_ids_T[a:b] == SPECIAL.mask_id).sum()) for a, b in itertools.pairwise(packed.cu_seqlens_Q1)
    ]
    _, alone = both(random_batch, CorruptionConfig(permutations=1, view_masks="one"))
    assert len(alone.tbo_label_M) and sum(masks_Q[: 2 * n]) > 5 * n
    # Every sentence whose two views both show a permuted span has its views three times over, with as many masks.
    pair_P = packed.spo_span_P // 5
    in_copies = sorted(masks_Q[q] for q in set(pair_P[packed.spo_label_P > 0].tolist()))
    in_first = sorted(masks_Q[q] for q in set(pair_P[packed.spo_label_P == 0].tolist()) for _ in range(2))
    assert in_copies == in_first


def test_copies_predict_no_targets_and_show_only_permuted_spans(random_batch):
    _, packed = both(random_batch, CorruptionConfig(permutations=3, view_masks="one"))
    n = random_batch.n_sentences
    beyond = int(packed.cu_seqlens_Q1[2 * n])
    assert (packed.tbo_first_piece_M < beyond).all()
    assert (packed.spo_label_P[packed.spo_span_P < 10 * n] == 0).all()
    assert (packed.spo_label_P[packed.spo_span_P >= 10 * n] > 0).all()
    assert set((packed.spo_span_P // 5).tolist()) >= set(range(2 * n, packed.n_sequences))


def one_sentence(words: int) -> SentenceBatch:
    return SentenceBatch(10 + np.arange(words), np.array([0, words]), np.arange(words), np.array([0, words]))


@pytest.mark.parametrize("view_masks", ["each", "one"])
def test_no_sequence_exceeds_the_stated_length(view_masks):
    config = CorruptionConfig(view_masks=view_masks)
    longest = set()
    for words, seed in itertools.product((3, 4, 5, 9), range(200)):
        packed = pack(corrupt(one_sentence(words), np.array([seed]), 0, 0, config), SPECIAL, view_masks)
        longest.add(packed.max_seqlen - longest_sequence(words + 2, config))
    assert max(longest) == 0


def test_a_batch_without_sentences_is_empty():
    none = SentenceBatch(np.empty(0, int), np.zeros(1, int), np.empty(0, int), np.zeros(1, int))
    for config in CONFIGS:
        _, packed = both(none, config)
        assert packed.n_sentences == packed.n_sequences == packed.n_tokens == packed.max_seqlen == 0


def test_switched_off_targets_are_none(random_batch):
    off = replace(CorruptionConfig(), permuted_spans=0, tbo_fraction=0.0)
    corrupted, packed = both(random_batch, off)
    assert not len(packed.spo_span_P) and not len(packed.tbo_label_M)
    assert (corrupted.piece_ids_U == random_batch.piece_ids_T).all()


def test_sentences_of_equal_pieces_have_one_text_id_whatever_stands_around_them(real_batch):
    batch = real_batch
    borders_N1 = batch.piece_borders_N1
    sentences = [tuple(batch.piece_ids_T[a:b].tolist()) for a, b in itertools.pairwise(borders_N1.tolist())]
    ids = text_ids(batch.piece_ids_T, borders_N1).tolist()
    by_text = dict(zip(sentences, ids, strict=True))
    assert [by_text[sentence] for sentence in sentences] == ids and len(set(ids)) == len(by_text)
    assert min(ids) >= 1 << 62
    again = [sentences[5], sentences[3], sentences[5], (*sentences[5], 7), sentences[5][::-1]]
    pieces_T = np.array([piece for sentence in again for piece in sentence], dtype=batch.piece_ids_T.dtype)
    found = text_ids(pieces_T, borders(np.array([len(sentence) for sentence in again]))).tolist()
    assert found[:3] == [ids[5], ids[3], ids[5]] and len(set(found)) == 4
