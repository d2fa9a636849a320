"""Networks: vision transformer, predictor, sizes and the I-JEPA model."""
