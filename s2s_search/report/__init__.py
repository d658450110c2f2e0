"""The report of one or several searches as a page.

May import: display, results, runs and the rooms below; plotly.
"""
