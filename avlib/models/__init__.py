"""Networks, one module for each; parameters carry the names of the published checkpoints."""
