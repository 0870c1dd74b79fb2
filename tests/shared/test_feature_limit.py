"""The limit that counts for a fit, and the option that a left-out feature's row names."""

from assets.labels.config import LabelsConfig
from assets.shared.feature_limit import feature_limit


def test_controls_have_a_limit_of_their_own_and_its_name_is_the_reason() -> None:
    settings = LabelsConfig(max_features=6, max_features_controls=3)
    assert feature_limit("labels", settings, False).n == 6
    control = feature_limit("labels", settings, True)
    assert (control.n, control.beyond) == (
        3,
        "beyond labels.max_features_controls=3, strongest first",
    )
