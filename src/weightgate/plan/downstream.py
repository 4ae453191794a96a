"""From a plan to what people see: mean error on tasks, and how long until a smaller model does as well."""

from __future__ import annotations

from weightgate.plan.doubted import Doubted
from weightgate.plan.laws.downstream import DENSITY_GROWTH_PER_DAY, EARLIER_GROWTH_PER_DAY, GADRE_ERRORS, densing_factor
from weightgate.plan.laws.loss import GADRE_C4, GADRE_REDPAJAMA, GADRE_REFINEDWEB
from weightgate.plan.quantities import spell_quantity
from weightgate.report.page import Cell, Column, Table

_CORPORA = {"c4": GADRE_C4, "redpajama": GADRE_REDPAJAMA, "refinedweb": GADRE_REFINEDWEB}
_WAITS = (("a quarter", 91.0), ("half a year", 182.0), ("a year", 365.0))


def errors_by_corpus(parameters: float, tokens: float) -> dict[str, tuple[float, float]]:
    """Corpus -> C4 loss in nats per token, and mean error of 46 tasks, of a model trained on it."""
    found = {}
    for corpus, law in _CORPORA.items():
        loss = float(law.constants.loss(parameters, tokens))
        found[corpus] = loss, GADRE_ERRORS[corpus].error(loss)
    return found


def task_error(parameters: float, tokens: float) -> Doubted:
    """Mean error of 46 tasks: the middle of three corpora, and their range."""
    errors = sorted(error for _, error in errors_by_corpus(parameters, tokens).values())
    return Doubted(value=errors[1], low=errors[0], high=errors[-1])


def tasks_table(parameters: float, tokens: float) -> Table:
    """What 46 tasks would say of a model of this size on so many tokens."""
    rows = tuple(
        (corpus, f"{loss:.3f}", f"{error:.1%}", f"{GADRE_ERRORS[corpus].eps:.1%}")
        for corpus, (loss, error) in errors_by_corpus(parameters, tokens).items()
    )
    return Table(
        title="What tasks would say",
        columns=(
            Column(name="trained on"),
            Column(name="C4 loss, nats/token", align="right"),
            Column(name="mean error of 46 tasks", align="right"),
            Column(name="of a model that knows nothing", align="right"),
        ),
        rows=rows,
        caption="Gadre et al. 2024 (arXiv 2403.08540): Err = eps - k exp(-gamma L), fitted to six runs up to 1.4B "
        "parameters; it missed 17 tasks of a 6.9B model by 0.05 %, of a 1.4B one on 640 tokens a parameter by 3.6 %.",
    )


def waiting_table(parameters: float) -> Table:
    """How many parameters the same scores take later, if open models go on getting denser as they did."""
    rows = tuple(
        (
            name,
            Cell(
                text=spell_quantity(parameters / densing_factor(days)),
                detail=f"up to {spell_quantity(parameters / densing_factor(days, growth=EARLIER_GROWTH_PER_DAY))}",
            ),
            f"{densing_factor(days):.3g} times fewer",
        )
        for name, days in _WAITS
    )
    return Table(
        title="Or wait",
        columns=(
            Column(name="after"),
            Column(name="parameters of the same scores", align="right"),
            Column(name="", align="right"),
        ),
        rows=rows,
        caption=f"ln of the best open model's density grew by {DENSITY_GROWTH_PER_DAY} a day (it doubles in 95 days), "
        f"before ChatGPT by {EARLIER_GROWTH_PER_DAY} (Xiao et al. 2024, arXiv 2412.04315v2): a trend of what was "
        "published up to 2024, no law.",
    )
