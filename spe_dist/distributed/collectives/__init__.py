"""Ways of reducing and gathering that torch.distributed does not have; `RankContext` chooses among them."""
