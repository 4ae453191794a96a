"""Audit verdicts as a condition of the contract: which data was audited, and how bad the worst finding was."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from weightgate.errors import LockError
from weightgate.recipe import Audit
from weightgate.report.finding import SEVERITIES
from weightgate.store.digest import digest_file


def audit_facts(audits: Sequence[Audit], folder: Path, data: Mapping[str, str], where: str) -> list[dict[str, Any]]:
    """What the contract says of each audit: name, digest, verdict, and the digest of the data it is about.

    Args:
        data: name -> digest of the preference data that must have been audited.
        where: the place in the recipe, for messages.

    Raises `LockError` where a verdict cannot be read or is worse than allowed, is of other data, or data has none.
    """
    facts = [_fact(audit, folder) for audit in audits]
    covered = {fact["data"] for fact in facts}
    for name, digest in data.items():
        if digest not in covered:
            raise LockError(
                f"no audit is of {name!r} as it is now",
                where=where,
                expected=f"an audit of {digest}",
                found="audits of " + ", ".join(sorted(covered)),
                mend=f"weightgate audit {name} --json > {audits[0].path}",
            )
    return facts


def _fact(audit: Audit, folder: Path) -> dict[str, Any]:
    path = folder / audit.path
    mend = f"weightgate audit <preferences> --json > {audit.path}"
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        verdict, data = told["verdict"], told["data"]["digest"]
        rank = SEVERITIES.index(verdict)
    except FileNotFoundError:
        raise LockError("the audit is not there", where=audit.path, mend=mend) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LockError("the file is no audit", where=audit.path, found=str(error)[:200], mend=mend) from None
    if rank > SEVERITIES.index(audit.worst):
        raise LockError(
            "the audit's verdict does not let the stage start",
            where=audit.path,
            expected=f"{audit.worst} or better",
            found=f"{verdict}: {told.get('headline', '')}"[:300],
            mend="read the findings; mend the data with weightgate audit --fix, or allow a worse verdict with `worst`",
        )
    return {"path": audit.path, "digest": digest_file(path), "verdict": verdict, "worst": audit.worst, "data": data}
