import importlib.util
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from levelhead.errors import ScorerError
from levelhead.toxicity import load_scorer, score_texts
from levelhead.toxicity.profanity import TESTED_VERSION, _check_files

FOUND = importlib.util.find_spec("profanity_check")
pytestmark = pytest.mark.skipif(FOUND is None, reason="alt-profanity-check is not installed")

WORDS = ["the", "a", "woman", "priest", "is", "nice", "idiot", "stupid", "damn", "lovely", "who"]

RECORDED = {
    "you are a nice person": 0.06813,
    "you stupid idiot": 1.0,
    "": 0.03638,
    "\x00 émü 漢字": 0.03638,
}


@pytest.fixture(scope="module")
def scorer():
    return load_scorer("profanity-check")


@pytest.fixture(scope="module")
def texts():
    rng = np.random.default_rng(0)
    return [" ".join(rng.choice(WORDS, 20)) + f" {i}" for i in range(40_000)]


@pytest.fixture
def data():
    return Path(FOUND.submodule_search_locations[0]) / "data"


def test_equals_the_library_across_its_calls(scorer, texts):
    from profanity_check import predict_prob

    expected = predict_prob(texts[:25_000])
    np.testing.assert_array_equal(scorer(texts[:25_000]), expected)
    assert np.ptp(expected) > 0.9  # the control: scores that differ


def test_recorded_scores(scorer):
    """The scores of the tested files, as recorded when their hashes were."""
    np.testing.assert_allclose(
        score_texts(scorer, list(RECORDED)), list(RECORDED.values()), atol=1e-5
    )


def test_scores_tens_of_thousands_of_short_texts_a_second(scorer, texts):
    start = time.process_time()
    scorer(texts)
    assert len(texts) / (time.process_time() - start) > 10_000


def test_identity_names_version_and_hash(scorer):
    assert (scorer.name, scorer.cost) == ("profanity-check", "cheap")
    assert scorer.identity == "profanity-check:1.9.1:aeafc04849d4d93d"


def test_other_files_are_never_loaded(tmp_path, data):
    for file in ("model.joblib", "vectorizer.joblib"):
        shutil.copy(data / file, tmp_path)
    _check_files(tmp_path)
    with (tmp_path / "vectorizer.joblib").open("r+b") as file:
        file.seek(1000)
        file.write(b"\x00")
    with pytest.raises(ScorerError, match=r"vectorizer.joblib of alt-profanity-check .* pip"):
        _check_files(tmp_path)
    (tmp_path / "model.joblib").unlink()
    with pytest.raises(ScorerError, match=f"alt-profanity-check=={TESTED_VERSION}"):
        _check_files(tmp_path)


def test_a_package_with_other_files_is_not_even_imported(tmp_path):
    package = tmp_path / "profanity_check"
    (package / "data").mkdir(parents=True)
    (package / "__init__.py").write_text("raise SystemExit('imported')")
    (package / "data" / "model.joblib").write_bytes(b"not the tested one")
    code = (
        "from levelhead.errors import ScorerError\n"
        "from levelhead.toxicity import load_scorer\n"
        "try: load_scorer('profanity-check')\n"
        "except ScorerError as err: print('refused:', err)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("refused:")
    assert str(tmp_path) in done.stdout


def test_importing_the_package_loads_no_dependency():
    code = (
        "import sys, levelhead.toxicity\n"
        "print([m for m in ('torch', 'transformers', 'sklearn') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
