"""Four dimensions, two views that reconcile, and what a million tokens cost."""
