"""How a model knows the order of its tokens: one file for each mechanism."""
