"""The made-up world of the demo: sentences, entities, relations."""
