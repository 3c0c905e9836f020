"""What draws tensors and their shapes the same way everywhere; it needs neither torch nor matplotlib."""
