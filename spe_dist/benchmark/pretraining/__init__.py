"""How fast pre-training is on this machine, beside a plain product of matrices and a plain form of the same step."""
