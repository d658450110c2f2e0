"""The report of one or several searches, as HTML and as Markdown.

May import: display, results, runs and the rooms below; plotly.
"""
