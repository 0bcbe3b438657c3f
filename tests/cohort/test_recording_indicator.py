import pytest
import torch

from pyro_amortized.cohort import as_recorded, as_scheduled, check_indicators, with_recorded
from pyro_amortized.errors import CohortError
from pyro_amortized.missing import default_design
from tests.programs import growth_cohort


def test_record_and_masks_must_agree():
    cohort = with_recorded(growth_cohort(4), "y")
    check_indicators(cohort)
    assert torch.equal(as_recorded(cohort)["y"].observed, cohort["y"].observed)
    assert as_scheduled(cohort)["y"].observed.all()
    torn = cohort.with_observed({"y": torch.zeros(4, 5, dtype=torch.bool)})
    with pytest.raises(CohortError, match="disagree"):
        check_indicators(torn)
    with pytest.raises(CohortError, match="scheduled"):
        with_recorded(growth_cohort(4), "y", torch.zeros(4, 5, dtype=torch.bool))
    assert default_design(cohort).missing(cohort, torch.Generator()) is cohort
