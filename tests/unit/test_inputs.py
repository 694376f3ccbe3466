"""What the verbs share."""

from __future__ import annotations

import warnings

from drivedistill.cli.inputs import keep_quiet


def test_the_libraries_talk_to_each_other_out_of_hearing():
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        keep_quiet()
        for module in ("transformers.modeling_utils", "transformers", "transformersx", "drivedistill.runs"):
            warnings.warn_explicit(f"from {module}", FutureWarning, "file.py", 1, module=module)
        warnings.warn_explicit("of another kind", UserWarning, "file.py", 1, module="transformers")
    assert [str(warning.message) for warning in heard] == [
        "from transformersx",
        "from drivedistill.runs",
        "of another kind",
    ]
