"""What a network attends to in a song: maps, pictures, a page.

Imports `exports` and the wings below it.
"""
