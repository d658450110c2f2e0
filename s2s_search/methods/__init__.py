"""Search methods that learn from every report: what trains next, by what was seen.

A Gaussian process models the values of all trials at all steps. Samplers propose configurations by
it, and schedulers pause trials and go on with them. Imports numpy, SciPy and the search spaces;
neither Ray nor torch.
"""
