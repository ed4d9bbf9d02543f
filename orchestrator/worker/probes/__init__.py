"""What measures a rank: memory by category, resident memory, operations, the GPU, the machine."""
