"""How a model begins: built piece by piece, filled from files tensor by tensor."""
