"""Write the demo corpus: text for pre-training and sentences with entities and relations for extraction."""

from __future__ import annotations

import argparse
import sys

from spe_dist.demo.labels import write_demo_distant
from spe_dist.demo.sentences import write_demo_corpus
from spe_dist.demo.shards import SEED, SENTENCES
from spe_dist.errors import SpeError


def main(arguments: list[str] | None = None) -> int:
    """Run the command; its exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", required=True, help="folder to write to")
    parser.add_argument("--sentences", type=int, default=SENTENCES, help="training sentences (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=SEED, help="another seed is another world (default: %(default)s)")
    parser.add_argument(
        "--distant", type=int, default=0, metavar="N", help="also N sentences with distant labels (default: none)"
    )
    options = parser.parse_args(arguments)
    try:
        write_demo_corpus(options.output, options.sentences, options.seed)
        if options.distant:
            write_demo_distant(options.output, options.distant, options.seed)
    except (SpeError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{options.output}: text.txt ({options.sentences} sentences), extraction/{{train,dev,test}}.json, unseen.txt")
    if options.distant:
        print(f"{options.output}/distant: text.txt, train.json, dev.json ({options.distant} sentences to train on)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
