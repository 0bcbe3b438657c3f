"""Fits of large cohorts: individuals in blocks, of which only what a round needs is kept."""
