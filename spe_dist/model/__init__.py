"""Packed BERT encoder, span encoder, span pair encoder and heads. Knows nothing of deepspeed or torch.distributed."""
