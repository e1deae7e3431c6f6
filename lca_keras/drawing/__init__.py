"""What people look at: plots, pages, tables in Markdown.

Imports `base`.
"""
