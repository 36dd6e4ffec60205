"""Memories: how the two streams of a sentence lie in a model. The three mismatches between streaming and offline
translation that Tong et al. 2025 (arXiv 2505.16983) tell apart are four ways to go, a file each. May import
engine.forward, engine.attention, engine.prefix and cache."""
