"""Many streams at a time in one model: a pool of rows, a coroutine for each sentence, threads that share them.
May import models, engine and cache."""
