"""An index of many made-up photos is killed, resumed, changed and folded, and every step is checked."""

from dataclasses import asdict
from pathlib import Path

import pytest
from rich.console import Console

from bench.build_scale import Scale, Step, measure, table_of


@pytest.mark.slow
def test_a_build_survives_a_kill_and_takes_changes(tmp_path: Path) -> None:
    scale = measure(400, "resnet18", tmp_path)
    assert [step.name for step in scale.steps] == ["killed half-way", "resumed", "100 photos more", "folded"]
    assert scale.steps[0].embedded >= 200
    assert [step.embedded for step in scale.steps[2:]] == [100, 0]
    assert 0 <= scale.embedded_again <= 96  # a transaction of the checkpoint and the batches on their way
    assert all(step.peak_bytes > 10 << 20 for step in scale.steps)
    assert asdict(scale)["photos"] == 400


def test_the_table_is_in_units_that_people_read(capsys: pytest.CaptureFixture[str]) -> None:
    steps = [Step("killed half-way", 60.4, 300 << 20, 500_032), Step("resumed", 900.0, 1_500 << 20, 500_000)]
    Console(width=120).print(table_of(Scale(1_000_000, "ivf-rabitq", steps, 32)))
    printed = capsys.readouterr().out
    for told in ("500,032", "60", "1500 MiB", "1,000,000 photos in ivf-rabitq", "32 embedded twice"):
        assert told in printed
