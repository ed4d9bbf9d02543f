"""One rank: what it trains, with which engine, and what it measures. Imports torch."""
