"""What makes MLX fast on a CPU. `STREAMLLM_CPU=plain` leaves all of it off: correct, only slower. May import
standins."""
