"""Models, accelerators, engines, precisions and offers: sourced rows, strictly loaded."""
