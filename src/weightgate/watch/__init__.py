"""Ask an endpoint on a schedule, keep the history, and alarm when its behaviour changes."""

from weightgate.watch.config import WatchConfig, load_config
from weightgate.watch.history import History
from weightgate.watch.page import status_page, write_status
from weightgate.watch.run import Outcome, Watch, cost_page, do, look_once, opened
from weightgate.watch.schedule import run_on_schedule
from weightgate.watch.template import write_template

__all__ = [
    "History",
    "Outcome",
    "Watch",
    "WatchConfig",
    "cost_page",
    "do",
    "load_config",
    "look_once",
    "opened",
    "run_on_schedule",
    "status_page",
    "write_status",
    "write_template",
]
