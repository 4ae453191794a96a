"""The main job and what surrounds it: plan, lock, build, report, export."""

from weightgate.build.run import Outcome, build_model, lock_contract
from weightgate.build.workspace import Workspace, open_workspace

__all__ = ["Outcome", "Workspace", "build_model", "lock_contract", "open_workspace"]
