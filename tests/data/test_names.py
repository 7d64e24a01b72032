"""Every name that `vertebra.data` shows resolves and is documented."""

from __future__ import annotations

import subprocess
import sys

import pytest

from vertebra import data


@pytest.mark.parametrize("name", data.__all__)
def test_a_name_resolves_and_is_documented(name: str):
    assert (getattr(data, name).__doc__ or "").strip()


def test_an_unknown_name_offers_the_nearest():
    with pytest.raises(AttributeError, match="Did you mean `batches`"):
        _ = data.batchs


def test_the_function_is_found_however_the_rooms_were_imported():
    code = (
        "import vertebra.data.loaders.loader, vertebra.tasks.chain\n"
        "from vertebra.data import batches\nassert callable(batches)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
