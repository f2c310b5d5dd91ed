"""What looks at indexes, repairs, measures and exports them."""
