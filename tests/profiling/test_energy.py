"""RAPL energy counters, simulated by a folder."""

import pytest

from maskrcnn_benchmark.profiling.energy import _rapl_meter


def write_zone(folder, name, joule, full=1000.0):
    zone = folder / name
    zone.mkdir(exist_ok=True)
    (zone / "max_energy_range_uj").write_text(str(int(full * 1e6)))
    (zone / "energy_uj").write_text(str(int(joule * 1e6)))


def test_packages_are_summed_without_their_parts(tmp_path):
    for name in ("intel-rapl:0", "intel-rapl:0:0", "intel-rapl:1"):
        write_zone(tmp_path, name, 5)
    joule, source = _rapl_meter(tmp_path)
    before = joule()
    write_zone(tmp_path, "intel-rapl:0", 7)
    write_zone(tmp_path, "intel-rapl:0:0", 6)
    write_zone(tmp_path, "intel-rapl:1", 8)
    assert joule() - before == pytest.approx(5)
    assert "2 CPU packages" in source


def test_counter_wraps_around(tmp_path):
    write_zone(tmp_path, "intel-rapl:0", 990, full=1000)
    joule, _ = _rapl_meter(tmp_path)
    before = joule()
    write_zone(tmp_path, "intel-rapl:0", 4, full=1000)
    assert joule() - before == pytest.approx(14)


def test_missing_counters_return_the_reason(tmp_path):
    joule, reason = _rapl_meter(tmp_path / "nothing")
    assert joule is None
    assert "no RAPL counters" in reason


def test_unreadable_counters_return_the_reason(tmp_path, monkeypatch):
    write_zone(tmp_path, "intel-rapl:0", 5)

    def refuse(self, *args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.read_text", refuse)
    joule, reason = _rapl_meter(tmp_path)
    assert joule is None
    assert "Permission denied" in reason
