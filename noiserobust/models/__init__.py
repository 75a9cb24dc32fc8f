"""Networks: registered ones, a user's own, and reading and writing their weights."""
