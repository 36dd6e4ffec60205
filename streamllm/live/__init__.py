"""Words as they arrive: from a terminal, and by SimulEval's protocol. May import batching, models, engine, policies,
runs and metrics."""
