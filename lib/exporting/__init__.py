"""One model, or one adapter, out of a chain of stages. Free of torch."""
