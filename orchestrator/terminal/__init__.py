"""What is said on the terminal while something runs, and how it gets there."""
