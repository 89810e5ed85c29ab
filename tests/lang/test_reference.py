"""The reference page says what the tables say."""

from __future__ import annotations

from pathlib import Path

from demon_live.lang import reference


def test_the_reference_page_is_up_to_date() -> None:
    """When this fails: demon help --all > patterns/REFERENCE.md"""
    page = Path(__file__).resolve().parents[2] / "patterns" / "REFERENCE.md"
    assert page.read_text(encoding="utf-8").strip() == reference().strip()
