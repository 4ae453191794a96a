"""Estimates with their doubt, and the tests that compare them."""

from weightgate.stats.calibration import conformal_p_value, false_alarm_rate
from weightgate.stats.corrections import benjamini_hochberg, benjamini_yekutieli, e_benjamini_hochberg, e_from_p
from weightgate.stats.estimates import (
    BOOTSTRAP_DRAWS,
    LEVEL,
    Estimate,
    Measurement,
    Unmeasured,
    correlation,
    mean,
    measurement_from_json,
    paired_difference,
    proportion,
    ratio,
)
from weightgate.stats.kernels import KernelTest, kernel_test
from weightgate.stats.paired import (
    Conditioned,
    PairedTest,
    cluster_means,
    conditioned_difference,
    effect_size,
    mcnemar,
    permutation_test,
    prompts_needed,
    sign_test,
    smallest_effect_seen,
)
from weightgate.stats.sequential import (
    BettingProcess,
    ConformalProcess,
    SpendingProcess,
    betting_evidence,
    rank_p_value,
)

__all__ = [
    "BOOTSTRAP_DRAWS",
    "LEVEL",
    "BettingProcess",
    "Conditioned",
    "ConformalProcess",
    "Estimate",
    "KernelTest",
    "Measurement",
    "PairedTest",
    "SpendingProcess",
    "Unmeasured",
    "benjamini_hochberg",
    "benjamini_yekutieli",
    "betting_evidence",
    "cluster_means",
    "conditioned_difference",
    "conformal_p_value",
    "correlation",
    "e_benjamini_hochberg",
    "e_from_p",
    "effect_size",
    "false_alarm_rate",
    "kernel_test",
    "mcnemar",
    "mean",
    "measurement_from_json",
    "paired_difference",
    "permutation_test",
    "prompts_needed",
    "proportion",
    "rank_p_value",
    "ratio",
    "sign_test",
    "smallest_effect_seen",
]
