"""Checks that both trainings make of their settings."""

import pytest

from spe_dist.config.shared import check_batch_divides
from spe_dist.errors import ConfigError


@pytest.mark.parametrize(
    ("batch", "ranks", "micro_batch", "message"),
    [
        (256, 3, 24, r"batch=256 is not divisible by 3 ranks x micro-batches of 24; .* 72, such as 216 or 288$"),
        (256, 2, 24, r"multiple of 48, such as 240 or 288, or a divisor of 128 as micro_batch_sentences$"),
        (4, 2, 4, r"choose a multiple of 8, such as 8, or a divisor of 2 as micro_batch_sentences$"),
        (10, 4, 1, r"batch=10 is not divisible by 4 ranks; choose a multiple of 4, such as 8 or 12$"),
        (0, 4, 1, r"batch=0 is not divisible by 4 ranks; choose a multiple of 4, such as 4$"),
        (8, 2, 0, r"micro_batch_sentences=0 is not positive"),
    ],
)
def test_batch_that_does_not_divide_names_the_nearest_that_do(batch, ranks, micro_batch, message):
    with pytest.raises(ConfigError, match=message):
        check_batch_divides("batch", batch, ranks, micro_batch)


def test_batch_that_divides_is_taken():
    check_batch_divides("batch", 256, 2, 32)
    check_batch_divides("batch", 256, 8)
