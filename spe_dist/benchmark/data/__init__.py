"""Reading shards at the scale of a billion sentences: how an index opens, and what a distant server makes of it."""
