"""Kaplan et al. 2020 (arXiv 2001.08361): WebText2, vocabulary 50,257, context 1,024; N counts no embeddings.

The paper has two sets of constants, one for each law alone (section 1.2) and one for the joint law (table 2); mixing
them is a common mistake, so each set stands with the functions that it belongs to. Compute is in PF-days. The laws are
superseded: see `laws.allocations.PORIAN_STEPS` for why.
"""

from __future__ import annotations

FLOPS_PER_PF_DAY = 8.64e19
"""1e15 FLOP/s for a day."""

_ALPHA_N, _N_C = 0.076, 8.8e13
_ALPHA_D, _D_C = 0.095, 5.4e13
_ALPHA_C, _C_C = 0.050, 3.1e8
_JOINT_ALPHA_N, _JOINT_N_C = 0.076, 6.4e13
_JOINT_ALPHA_D, _JOINT_D_C = 0.103, 1.8e13
_ALPHA_B, _B_STAR = 0.21, 2.1e8
_STEPS_ALPHA_N, _STEPS_N_C = 0.077, 6.5e13
_ALPHA_S, _S_C = 0.76, 2.1e3


def loss_of_parameters(parameters: float) -> float:
    """L(N) = (8.8e13 / N)^0.076, nats per token with data and compute unlimited (eq. 1.1)."""
    return float((_N_C / parameters) ** _ALPHA_N)


def loss_of_tokens(tokens: float) -> float:
    """L(D) = (5.4e13 / D)^0.095, nats per token of a large model stopped early (eq. 1.2)."""
    return float((_D_C / tokens) ** _ALPHA_D)


def loss_of_compute(pf_days: float) -> float:
    """L(C_min) = (3.1e8 / C_min)^0.050 for compute spent well (eq. 1.3; the caption of figure 1 prints 2.3e8)."""
    return float((_C_C / pf_days) ** _ALPHA_C)


def joint_loss(parameters: float, tokens: float) -> float:
    """L(N, D) = ((6.4e13 / N)^(0.076/0.103) + 1.8e13 / D)^0.103 (eq. 1.5, constants of table 2)."""
    scaled = (_JOINT_N_C / parameters) ** (_JOINT_ALPHA_N / _JOINT_ALPHA_D)
    return float((scaled + _JOINT_D_C / tokens) ** _JOINT_ALPHA_D)


def loss_of_steps(parameters: float, steps: float) -> float:
    """L(N, S) = (6.5e13 / N)^0.077 + (2.1e3 / S_min)^0.76 (eq. 1.6; the first pair of constants is unverified)."""
    return float((_STEPS_N_C / parameters) ** _STEPS_ALPHA_N + (_S_C / steps) ** _ALPHA_S)


def critical_batch(loss: float) -> float:
    """B_crit(L) = 2.1e8 / L^(1/0.21), tokens (eq. 1.4)."""
    return float(_B_STAR / loss ** (1 / _ALPHA_B))


def tokens_against_overfitting(parameters: float) -> float:
    """D of about 5e3 N^0.74, below which the joint law sees overfitting (eq. 4.4)."""
    return float(5e3 * parameters**0.74)
