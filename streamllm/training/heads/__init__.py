"""What a write head learns from: predictions from every prefix of a source, and labels made of them."""
