"""What fits the shipped surfaces of kernel times, one module per family of operations."""
