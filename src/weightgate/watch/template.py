"""The commented configuration that `weightgate watch CONFIG --init` writes."""

from __future__ import annotations

from pathlib import Path

from weightgate.errors import WatchError

TEMPLATE = """\
# weightgate watch: ask an endpoint the same questions on a schedule, and alarm when its answers change.
version: 1
name: my-endpoint               # the watch's name in its history

target:
  url: http://127.0.0.1:8000/v1 # OpenAI-compatible; https, or http on this machine
  model: align
  # api_key_variable: OPENAI_API_KEY   # name of the environment variable, never the key
  # budget: {calls: 2000}              # for one look, retries included
  # price: {prompt_per_million: 0.15, completion_per_million: 0.60}

ask:
  suite: core                   # a suite file, or core; or, instead, your own: prompts: my.jsonl
  samples: 1                    # completions of each prompt at each look
  temperature: 0.7
  max_tokens: 256

every: 1h                       # time between looks, unless cron runs --once

baseline:
  snapshots: 3                  # asked before the first look; compared with each other they are the A/A null

history:
  url: watch.db                 # a SQLite file, or postgresql://user@host/database
  # password_variable: PGPASSWORD      # or url_variable: the whole URL from the environment

alarm:
  alpha: 0.05                   # chance of ever alarming while nothing changes, however often it looks
  persistence: 2                # so many looks in a row must show the shift
  floor: 0.02                   # smaller shifts, as a share of an axis' range, are no alarm
  exit_code: 1
  outage_exit_code: 3           # the endpoint could not be asked: not a change
  file: alarm.json              # there as long as an alarm is open
  report: alarm.html            # what changed, how sure, which prompts show it
  # webhooks:
  #   - url_variable: ALARM_WEBHOOK

budget: {}                      # calls_per_day, tokens_per_day, money_per_day
report: status.html             # written after every look
"""


def write_template(path: Path) -> None:
    """Write the template. Raises `WatchError` where a file is there already."""
    if path.exists():
        raise WatchError("there is a configuration already", where=str(path), mend="choose another file")
    try:
        path.write_text(TEMPLATE, encoding="utf-8")
    except OSError as error:
        mend = None if path.parent.is_dir() else f"mkdir -p {path.parent}"
        found = error.strerror or str(error)
        raise WatchError("the configuration cannot be written", where=str(path), found=found, mend=mend) from None
