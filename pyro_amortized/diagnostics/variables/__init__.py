"""Variables of a cohort that results are compared with: values, regressions, findings."""
