"""One configuration over one data set into one run folder. May import batching, models, engine, tracking, plots (behind
`Picture` only), runs, metrics, policies and data's protocol."""
