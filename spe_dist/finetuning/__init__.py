"""Fine-tuning of the joint model: data, rates, step, evaluation, loop (METHOD, Fine-tuning)."""
