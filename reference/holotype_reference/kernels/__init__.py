"""Attention at speed: ways through the formula that take less time or memory. Nobody needs them to read a model."""
