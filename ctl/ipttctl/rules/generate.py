# SPDX-License-Identifier: GPL-2.0
"""``python -m ipttctl.rules.generate``: write owners.json from owners.yaml."""

from __future__ import annotations

import json

import yaml

from ipttctl.rules.owner_entries import OWN


def generated() -> str:
    """The content of the file: every key and value of owners.yaml as text."""
    entries = yaml.load(OWN.with_suffix(".yaml").read_text(encoding="utf-8"), yaml.BaseLoader)
    return json.dumps(entries, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    OWN.write_text(generated(), encoding="utf-8")
