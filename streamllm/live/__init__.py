"""Words as they arrive: from a terminal, by many streams that share a pool, and by SimulEval's protocol. May import
batching, models, engine, policies, runs and metrics."""
