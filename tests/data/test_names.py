"""Every name that `vertebra.data` shows resolves, is documented, and is what its home holds."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

from vertebra import data


@pytest.mark.parametrize("name", data.__all__)
def test_a_name_is_what_its_home_holds(name: str):
    value = getattr(data, name)
    assert value is getattr(importlib.import_module(data._HOME[name]), name)
    assert (value.__doc__ or "").strip()


def test_an_unknown_name_offers_the_nearest():
    with pytest.raises(AttributeError, match="Did you mean `batches`"):
        _ = data.batchs


def test_the_function_is_found_however_the_rooms_were_imported():
    code = (
        "import vertebra.data.loaders.loader, vertebra.tasks.chain\n"
        "from vertebra.data import batches\nassert callable(batches)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
