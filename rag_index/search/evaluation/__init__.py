"""How well searches find what they should: golden queries, measures, and the comparison of ways to
search."""
