"""The judge: what a property is, how its cases are drawn, shrunk and judged, and what is said of them.

It knows neither models nor kernels.
"""
