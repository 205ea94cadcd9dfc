"""Pure functions on tensors: no verl, no ray, no configuration."""
