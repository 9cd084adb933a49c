"""What is deployed, what it weighs, and whether it fits."""
