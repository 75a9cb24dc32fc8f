"""What noise does to weights and networks, beyond accuracy."""
