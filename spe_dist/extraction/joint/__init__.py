"""The joint model of entities and relations, its examples and its folder."""
