"""From features to a decision: whitening, priors, scores, calibration and the three-way answer. Pure, float64."""
