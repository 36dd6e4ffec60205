"""Training of streaming models: data, the wait-k mask, the loop."""
