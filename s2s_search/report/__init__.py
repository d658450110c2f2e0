"""What searches found, as a page: report.html, and the same words and tables as Markdown."""
