"""What a search shows on a terminal, and the rankings that are printed.

May import: results, runs and the ground floor; rich. Only `tables` needs pandas.
"""
