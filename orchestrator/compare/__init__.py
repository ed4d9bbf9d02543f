"""Which strategy is best: runs beside each other, with their noise, and whether they are alike."""
