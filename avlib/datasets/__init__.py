"""Files and tables to batches, one module for each system."""
