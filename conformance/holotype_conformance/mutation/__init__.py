"""Tools over deviations: which property kills which, as a matrix, and the public reports behind them."""
