"""Tools over torch itself: back ends of the machine, a simulated device, float64 throughout, plain tensors."""
