"""Mistakes in the data: copies, values that are no measurements, and what a mistake undone
would make more likely.
"""
