"""From sentences to examples: pieces, windows, context, and gold that is counted where it cannot be represented."""

from collections import Counter

import numpy as np
import pytest

from spe_dist.errors import ConfigError
from spe_dist.extraction.corpora.corpus import Corpus, Document, Entity, Relation, Sentence
from spe_dist.extraction.joint.batch import collate
from spe_dist.extraction.joint.examples import document_ids, make_examples
from spe_dist.extraction.joint.tags import TAGS

PER, ORG, LOC = "per", "org", "loc"


def words(text, **fields):
    return Sentence(tuple(text.split()), **fields)


def examples_of(joint, sentences, max_pieces=64, labels=True, **options):
    notices = Counter()
    labels = joint.LABELS if labels else None
    examples = make_examples(sentences, joint.tokenizer(), labels, max_pieces, notices=notices, **options)
    return examples, notices


def pieces(joint, example, number=0):
    return joint.tokenizer().convert_ids_to_tokens(example.windows[number].piece_ids)


def test_a_short_sentence_is_one_window_of_its_pieces(joint):
    (example,), notices = examples_of(joint, [words("w1 w2ab unheard w3 \u200b")])
    assert pieces(joint, example) == ["[CLS]", "w1", "w2", "##a", "##b", "[UNK]", "w3", "[UNK]", "[SEP]"]
    window = example.windows[0]
    assert window.first_pieces == [1, 2, 5, 6, 7]
    assert (window.first_word, window.end_word, window.own_first, window.own_end) == (0, 5, 0, 5)
    assert example.n_pieces == 9 and not notices


def test_a_sentence_without_words_is_an_example_too(joint):
    (example,), _ = examples_of(joint, [Sentence(())])
    assert pieces(joint, example) == ["[CLS]", "[SEP]"]
    assert example.gold.tags.shape == (0,) and example.gold.spans.shape == (0, 2)


def test_gold_becomes_tags_classes_and_pairs_by_position(joint):
    a, b, c = Entity(4, 5, PER), Entity(0, 2, LOC), Entity(2, 3, ORG)
    sentence = words("w1 w2 w3 w4 w5", entities=(a, b, c), relations=(Relation("of", a, b), Relation("in", c, a)))
    (example,), notices = examples_of(joint, [sentence])
    assert "".join(TAGS[tag] for tag in example.gold.tags) == "BEUOU"
    assert example.gold.spans.tolist() == [[0, 2], [2, 3], [4, 5]]
    assert example.gold.classes.tolist() == [1, 2, 3]
    assert dict(zip(map(tuple, example.gold.pairs.tolist()), example.gold.pair_classes.tolist(), strict=True)) == {
        (0, 2): 4,  # "of", and the second span is the head
        (1, 2): 1,  # "in", and the first one is
    }
    assert not notices


def test_what_cannot_be_represented_is_counted(joint):
    a, inner, b = Entity(0, 3, PER), Entity(1, 2, ORG), Entity(4, 5, LOC)
    torn, argument = Entity(0, 5, LOC, fragments=((0, 1), (4, 5))), Entity(3, 4, "")
    sentence = words(
        "w1 w2 w3 w4 w5",
        entities=(a, inner, b, b, Entity(4, 5, PER), torn, Entity(3, 4, "new")),
        relations=(
            Relation("in", a, b),
            Relation("of", a, b),
            Relation("in", a, inner),
            Relation("in", a, a),
            Relation("in", torn, a),
            Relation("new", a, b),
            Relation("in", argument, b),
        ),
    )
    (example,), notices = examples_of(joint, [sentence])
    assert "".join(TAGS[tag] for tag in example.gold.tags) == "BIEOU"
    assert example.gold.spans.tolist() == [[0, 3], [1, 2], [3, 4], [4, 5]]
    assert example.gold.classes.tolist() == [3, 2, 0, 1]  # the argument is no entity
    assert example.gold.pairs.tolist() == [[0, 3], [2, 3]] and example.gold.pair_classes.tolist() == [1, 1]
    assert notices == {
        "discontinuous entities, not trained": 1,
        "entities of types the model does not know": 1,
        "further types on one span, not trained": 1,
        "entities that overlap others, typed but not tagged": 1,
        "relations of types the model does not know": 1,
        "relations of discontinuous entities, not trained": 1,
        "relations between overlapping spans, not trained": 2,
        "further relations on one pair, not trained": 1,
        "relations with an argument that is not an entity": 1,
    }


@pytest.mark.parametrize("max_pieces", [3, 5, 8, 13, 20])
@pytest.mark.parametrize("seed", range(3))
def test_windows_cover_a_long_sentence_and_own_each_word_once(joint, seed, max_pieces):
    sentence = joint.random_sentences(seed, [40])[0]
    (example,), notices = examples_of(joint, [sentence], max_pieces, labels=False)
    (plain,), _ = examples_of(joint, [sentence], 500, labels=False)
    all_pieces, starts = plain.windows[0].piece_ids[1:-1], [*plain.windows[0].first_pieces, plain.n_pieces - 1]
    own = []
    for window in example.windows:
        assert len(window.piece_ids) <= max_pieces
        own += range(window.own_first, window.own_end)
        for offset, word in enumerate(range(window.first_word, window.end_word)):
            first = window.first_pieces[offset]
            wanted = all_pieces[starts[word] - 1 : starts[word + 1] - 1][: max_pieces - 2]
            assert window.piece_ids[first : first + len(wanted)] == wanted
    assert own == list(range(40))
    assert example.windows[-1].end_word == 40
    assert notices["sentences longer than the encoder reads, read in windows"] == 1
    if max_pieces >= 8:  # a word stands in the middle of its window, as far as the sentence allows
        spans = np.array([(window.first_word, window.end_word) for window in example.windows])
        for word in range(40):
            margins = [
                min(word - a if a else 99, b - word - 1 if b < 40 else 99) if a <= word < b else -1 for a, b in spans
            ]
            owner = next(i for i, window in enumerate(example.windows) if window.own_first <= word < window.own_end)
            assert margins[owner] == max(margins)


def test_a_word_longer_than_the_encoder_is_cut_and_counted(joint):
    (example,), notices = examples_of(joint, [words("w1 w2" + "a" * 9 + " w3")], max_pieces=6)
    assert [pieces(joint, example, i) for i in range(len(example.windows))] == [
        ["[CLS]", "w1", "[SEP]"],
        ["[CLS]", "w2", "##a", "##a", "##a", "[SEP]"],
        ["[CLS]", "w3", "[SEP]"],
    ]
    assert notices["words cut because they are longer than the encoder reads"] == 1


def test_gold_that_no_window_holds_is_counted(joint):
    a, b, wide = Entity(0, 1, PER), Entity(28, 29, LOC), Entity(3, 25, ORG)
    sentence = words(" ".join(["w1"] * 30), entities=(a, b, wide), relations=(Relation("in", a, b),))
    (example,), notices = examples_of(joint, [sentence], max_pieces=12)
    assert example.gold.spans.tolist() == [[0, 1], [28, 29]]
    assert (example.gold.tags[3:25] != 3).all() and len(example.gold.pairs) == 0
    assert notices["relations that no window holds, not trained"] == 1
    assert notices["entities that no window holds, tagged but not typed"] == 1


def test_context_comes_from_neighbours_in_the_document_as_far_as_there_is_room(joint):
    sentences = [words("w1 w2"), words("w3 w4a"), words("w5"), words("w6 w7 w8")]
    documents = [0, 0, 0, 1]

    def middle(max_pieces, context_pieces, number=1):
        examples, _ = examples_of(joint, sentences, max_pieces, context_pieces=context_pieces, documents=documents)
        window = examples[number].windows[0]
        own = [pieces(joint, examples[number])[i] for i in window.first_pieces]
        return " ".join(pieces(joint, examples[number])[1:-1]), own

    assert middle(64, 0) == ("w3 w4 ##a", ["w3", "w4"])
    assert middle(64, 1) == ("w2 w3 w4 ##a w5", ["w3", "w4"])
    assert middle(64, 9) == ("w1 w2 w3 w4 ##a w5", ["w3", "w4"])
    assert middle(7, 9) == ("w2 w3 w4 ##a w5", ["w3", "w4"])
    assert middle(6, 9) == ("w3 w4 ##a w5", ["w3", "w4"])
    assert middle(5, 9) == ("w3 w4 ##a", ["w3", "w4"])
    assert middle(64, 9, 2) == ("w1 w2 w3 w4 ##a w5", ["w5"])
    assert middle(64, 9, 3) == ("w6 w7 w8", ["w6", "w7", "w8"])


def test_document_ids_number_the_sentences_documents():
    sentence = Sentence(("a",))
    corpus = Corpus((Document("x", (sentence, sentence)), Document("y", ()), Document("z", (sentence,))))
    assert document_ids(corpus) == [0, 0, 2]


def test_settings_that_leave_no_room_are_refused(joint):
    with pytest.raises(ConfigError, match="max_pieces=2"):
        examples_of(joint, [], max_pieces=2)
    with pytest.raises(ConfigError, match="context_pieces=-1"):
        examples_of(joint, [], context_pieces=-1)


def test_a_batch_lays_windows_one_behind_the_other(joint):
    examples, _ = examples_of(joint, joint.random_sentences(1, [3, 30, 0, 5]), max_pieces=16)
    batch = collate(examples)
    windows = [window for example in examples for window in example.windows]
    assert batch.piece_ids_T.tolist() == [piece for window in windows for piece in window.piece_ids]
    assert batch.positions_T[batch.cu_seqlens_Q1[:-1].long()].tolist() == [0] * len(windows)
    assert batch.max_seqlen == max(len(window.piece_ids) for window in windows)
    assert batch.max_words == 30 and batch.max_windows == len(examples[1].windows) > 2
    assert (batch.n_examples, batch.n_sequences, batch.n_words) == (4, len(windows), 38)
    first = 0
    for example, start in zip(examples, batch.sentence_borders_B1.tolist(), strict=False):
        spans = [(a - start, b - start) for a, b in zip(batch.entity_start_E, batch.entity_end_E, strict=True)]
        assert [list(map(int, span)) for span in spans[first : first + len(example.gold.spans)]] == (
            example.gold.spans.tolist()
        )
        first += len(example.gold.spans)
