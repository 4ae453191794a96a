"""The main job and what surrounds it: plan, lock, build, report, export."""

from weightgate.build.exporting import export_checkpoint
from weightgate.build.locking import lock_contract
from weightgate.build.page import require_place, write_report
from weightgate.build.planning import plan_build
from weightgate.build.run import Outcome, build_model
from weightgate.build.workspace import Workspace, open_workspace

__all__ = [
    "Outcome",
    "Workspace",
    "build_model",
    "export_checkpoint",
    "lock_contract",
    "open_workspace",
    "plan_build",
    "require_place",
    "write_report",
]
