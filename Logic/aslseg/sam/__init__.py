"""The Segment Anything Model: its parts, its weights, its tuning, its use on slices."""
