"""One forward, one session, one loop: a sentence on its way through a model. May import cache and cpu."""
