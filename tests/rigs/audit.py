"""`python -m tests.rigs.audit`: known holes in the packages that are installed here, by pip-audit.

Says how many packages the advisory service knew, which it did not know, and what it found. Exit
code 0: nothing found, or each finding is explained below; 1: a finding that is not; 2: nobody could
be asked (no network, or an index without advisories), which says nothing either way.

Threads: main thread; pip-audit is a child process.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

__all__ = ["EXPLAINED", "judge"]

#: Advisory -> why it does not concern us.
EXPLAINED: Mapping[str, str] = {}


def judge(dependencies: list[Mapping[str, Any]]) -> dict[str, Any]:
    """pip-audit's list of packages as a report; `rc` is the exit code."""
    known = [d for d in dependencies if "skip_reason" not in d]
    found = [
        {"package": d["name"], "version": d["version"], "id": hole["id"],
         "fixed_in": hole.get("fix_versions", []), "explained": EXPLAINED.get(hole["id"], "")}
        for d in known
        for hole in d.get("vulns", [])
    ]  # fmt: skip
    rc = 1 if any(not f["explained"] for f in found) else 0 if known else 2
    skipped = sorted(d["name"] for d in dependencies if "skip_reason" in d)
    return {"audited": len(known), "not_known_there": skipped, "found": found, "rc": rc}


def main() -> int:
    words = argparse.ArgumentParser(prog="audit", description=__doc__)
    words.add_argument("--service", choices=("pypi", "osv"), default="pypi")
    words.add_argument("--offline-ok", action="store_true", help="0 where nobody could be asked")
    options = words.parse_args()
    command = [sys.executable, "-m", "pip_audit", "--format", "json", "--progress-spinner", "off",
               "--vulnerability-service", options.service]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        report = judge(json.loads(done.stdout)["dependencies"])
    except (ValueError, KeyError):
        last = done.stderr.strip().splitlines()[-1:] or ["pip-audit said nothing"]
        report = {"audited": 0, "not_known_there": [], "found": [], "rc": 2, "error": last[0]}
    sys.stdout.write(json.dumps(report, indent=2) + "\n")
    rc = int(report["rc"])
    return 0 if rc == 2 and options.offline_ok else rc


if __name__ == "__main__":
    sys.exit(main())
