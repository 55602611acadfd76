"""What `spe adapt --objectives` chooses from, as settings of the pre-training."""

from __future__ import annotations

OBJECTIVES = {
    "mlm": "--mlm true --tbo false --spo false --cspo false",
    "spe": "--mlm false --tbo true --spo true --cspo true",
    "spe+mlm": "--mlm true --tbo true --spo true --cspo true",
}
DEFAULT_OBJECTIVES = "mlm"  # the best on dev for its time (experiments/files/adapt.yaml)
