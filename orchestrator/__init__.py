"""Distributed training on Ray in which every sharding strategy shows what it costs."""
