"""One run drawn: memory by category, step times, rank by step. The only room with matplotlib."""
