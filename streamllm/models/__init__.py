"""Any decoder of mlx-lm as a streaming model: where it is found, how it is loaded, which families can stream.
May import engine and cache."""
