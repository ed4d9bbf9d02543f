"""What a job will cost before it runs: arithmetic on shapes and sizes, without torch."""
