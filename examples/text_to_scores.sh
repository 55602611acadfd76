#!/usr/bin/env bash
# From raw text to scores, in a minute or two on two CPU cores: every command that a real project types, on a made-up
# world of people, towns and firms. For a real project, put your own files in place of WORLD, bert-base-cased in place of
# the vocabulary that is trained here, and the preset paper or small in place of demo.
#
#   examples/text_to_scores.sh [FOLDER]       default: runs/example; an earlier one there is replaced
set -euo pipefail

folder=${1:-runs/example}
if [[ -e $folder && ! -e $folder/world/text.txt ]]; then
    echo "error: $folder is no earlier example; give another folder" >&2
    exit 2
fi
rm -rf "$folder"
mkdir -p "$folder"
cd "$folder"

# 1. What you have: raw text to pre-train on, and labelled sentences. Dev chooses the best epoch, test is scored once.
#    The made-up sentences are tokenised: words and punctuation stand between spaces.
python -m spe_dist.demo.corpus --output world --sentences 6000
head -n 3 world/text.txt
spe corpus inspect world/extraction/train.json world/extraction/dev.json world/extraction/test.json

# 2. Shards: words, word pieces and a held-out part, shuffled over the whole corpus.
spe shards make --input world/text.txt --output shards --train_vocab 2000 --held_out 0.03
spe shards verify shards

# 3. What training will see of a sentence: two spans, their words shuffled, two views of it.
spe shards show shards --sentence 17

# 4. Pre-training, much too short to be of use: 100 steps of a network of the preset demo, 64 wide. A real run has tens
#    of thousands of steps; with --encoder NAME it starts from a published encoder and has its sizes.
spe pretrain --preset demo --shards shards --output pretraining --steps 100

# 5. Plain PyTorch: a BertModel for transformers with the span and span pair encoder beside it.
spe export pretraining encoder

# 6. Fine-tuning on the labelled sentences. The rates of the preset demo suit so small an encoder, --preset paper has those
#    of BERT-base, --preset small those between.
spe finetune --preset demo --start encoder --train world/extraction/train.json --dev world/extraction/dev.json \
    --test world/extraction/test.json --train_share 0.5 --output extraction

# 7. Scores on sentences that no step has seen, with 95% intervals.
spe score --gold world/extraction/test.json --predictions extraction/predictions_test.json

# 8. Text that nobody has labelled, here of another made-up world: JSON lines, and a page to look at.
python -m spe_dist.demo.corpus --output unseen --sentences 50 --seed 1
spe predict extraction/model unseen/text.txt --tokenised --output unseen.jsonl --html unseen.html
head -n 1 unseen.jsonl
echo "look at $PWD/unseen.html"
