"""Truth: the published sigma tables (Penny+ 2019; McKinnon & van der Marel; RMDC26)."""

import numpy as np
import pytest

from microlens import survey

M = [15, 18, 20, 21, 22, 24, 26]
TABLE = {"penny2019": [0.00113, 0.00230, 0.00544, 0.00896, 0.01570, 0.06434, 0.3595],
         "roman": [0.00112, 0.00227, 0.00537, 0.00885, 0.01559, 0.06473, 0.3638],
         "crowded": [0.00110, 0.00216, 0.00569, 0.0108, 0.0229, 0.128, 0.788]}


@pytest.mark.parametrize("detector", TABLE)
def test_sigma_table(detector):
    assert survey.sigma_mag(M, detector) == pytest.approx(TABLE[detector], rel=0.01)


def test_schedules():
    assert len(survey.epochs("thesis")) == 6912
    t = survey.epochs("roman", 1)
    assert 8150 <= len(t) <= 8200 and (np.diff(t) > 0).all()
    assert (np.diff(t) > 0.2).sum() == 7
