"""What commands share: arguments, progress, tables of scores, advice.

Imports every wing; only commands import it.
"""
