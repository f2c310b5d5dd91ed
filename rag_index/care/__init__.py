"""What looks at indexes, repairs, measures and moves them."""
