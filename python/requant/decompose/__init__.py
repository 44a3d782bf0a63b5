"""Which weights are kept in 16 bits: outliers (before) and significant weights (after the dense part is quantized)."""
