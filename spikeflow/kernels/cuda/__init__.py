"""The card: launches and memory, matrix products, sums."""
