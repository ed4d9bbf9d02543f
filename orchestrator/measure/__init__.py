"""What a run did cost: samples of ranks, the one table of metric names, the summary.

Pure arithmetic.
"""
