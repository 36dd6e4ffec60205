"""Data sets, one file a kind, and the readers under them, whole or streamed. May import the ground alone, and loads
`datasets` only where it reads."""
