"""Outcomes that are no concentrations: hazards and times of events, categories that depend on the
category before.
"""
